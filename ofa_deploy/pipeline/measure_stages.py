"""The stages that measure: profiles, audits, and every subnet on every target."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypedDict

from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.deploy.audits import audit_folder, keep_audit
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.profiling import network_item, profile
from ofa_deploy.json_types import JSON
from ofa_deploy.latency_models import load_table
from ofa_deploy.pipeline.context import Context, file_sha256, rows_hash, shared
from ofa_deploy.pipeline.document import AuditStage, CompareStage, ProfileStage
from ofa_deploy.pipeline.remembered import Begun

Archs = Mapping[str, Mapping[str, JSON]]  # genotypes by their keys


class Profiled(TypedDict):
    """What a profile left: the hash of the blocks' rows, and the ``id`` of the newest measurement."""

    rows: str
    until: int


class Audited(TypedDict):
    """What an audit left: its file's hash, and the ``id`` of the newest measurement."""

    sha256: str
    until: int


class MeasuredThere(TypedDict):
    """What a network took on another target, in ms."""

    p50: float
    p90: float
    simulated: bool


def profile_stage(run: Context, stage: ProfileStage) -> None:
    """Fill the tables of the stage's targets."""
    _each_device(run, run.names(stage), lambda fleet, name: _profile(run, fleet, name, stage))


def _profile(run: Context, fleet: Callable[[], Fleet], name: str, stage: ProfileStage) -> None:
    target = run.target(name)

    def inputs() -> dict[str, object]:
        return {"supernet": file_sha256(run.path), "target": target.model_dump(), "networks": stage.networks}

    def work(_: Begun) -> Profiled:
        table = profile(
            fleet(),
            run.workspace,
            target,
            run.subject.space,
            networks=stage.networks,
            protocol=read_document(Protocol, stage.protocol),
            progress=lambda p: run.tell(f"measure blocks and networks on {name}", p),
        )
        return {"rows": rows_hash(table), "until": run.workspace.store.newest_measurement(name)}

    def lasts(outputs: Profiled) -> bool:
        table = load_table(run.workspace, target)
        return bool(table.rows) and outputs["rows"] == rows_hash(table)

    if outputs := run.unit(f"profile {name}", name, inputs, work, lasts):
        run.until[name] = outputs["until"]


def audit_stage(run: Context, stage: AuditStage) -> None:
    """Say how good the tables of the stage's targets are."""
    _each_device(run, run.names(stage), lambda fleet, name: _audit(run, fleet, name, stage))


def _audit(run: Context, fleet: Callable[[], Fleet], name: str, stage: AuditStage) -> None:
    target, file = run.target(name), run.folder / "audits" / name / "audit.json"

    def work(begun: Begun) -> Audited:
        known = run.until.get(name, begun.newest)
        with fleet().replaying(name, begun.newest):
            answer = audit(
                fleet(),
                run.workspace.as_of(name, known),
                target,
                run.subject.space,
                stage.networks,
                stage.seed,
                stage.statistic,
                read_document(Protocol, stage.protocol),
                lambda p: run.tell(f"audit predictions on {name}", p),
            )
        command = shlex.join(["ofa-deploy", "run", run.document.name])
        keep_audit(run.workspace, {**answer.to_json(), "command": command}, audit_folder(file.parent))
        return {"sha256": file_sha256(file), "until": run.workspace.store.newest_measurement(name)}

    outputs = run.unit(
        f"audit {name}",
        name,
        lambda: {**run.rests_on(target), "stage": shared(stage)},
        work,
        lambda outputs: file.exists() and file_sha256(file) == outputs["sha256"],
    )
    if outputs:
        run.audits[name] = json.loads(file.read_text())
        run.until[name] = outputs["until"]


def _each_device(run: Context, names: Sequence[str], work: Callable[[Callable[[], Fleet], str], None]) -> None:
    """Measure on devices: one after the other on this machine, and beside that on every other one."""
    here = [name for name in names if run.target(name).here or run.target(name).simulated]
    lanes = [here, *([name] for name in names if name not in here)]
    if run.dry or len(lanes) == 1:
        for name in names:
            work(run.fleet, name)
        return

    def lane(mine: list[str], fleet: Fleet) -> None:
        for name in mine:
            work(lambda: fleet, name)

    run.subject  # noqa: B018 - loaded once, before threads ask for it
    fleets = [run.fleet(i) for i in range(len(lanes))]
    with ThreadPoolExecutor(len(lanes)) as pool:
        for done in [pool.submit(lane, *one) for one in zip(lanes, fleets, strict=True)]:
            done.result()


def cross(run: Context, stage: CompareStage) -> dict[str, dict[str, MeasuredThere]]:
    """Of every subnet, by its key, the latencies that all the pipeline's targets measure."""
    found = dict[str, dict[str, MeasuredThere]]()
    archs = {report["subnet"]["key"]: report["subnet"]["arch"] for report in run.outcome.reports}
    for name in run.targets or dict.fromkeys(report["target"]["name"] for report in run.outcome.reports):
        outputs = _crossed(run, run.target(name), archs, stage)
        for key, latency in (outputs or {}).items():
            found.setdefault(key, {})[name] = latency
    return found


def _crossed(run: Context, target: TargetProfile, archs: Archs, stage: CompareStage) -> dict[str, MeasuredThere] | None:
    inputs = {"target": target.model_dump(), "archs": sorted(archs), "protocol": stage.protocol}
    work = partial(_everywhere, run, target, archs, stage)
    return run.unit(f"compare on {target.name}", target.name, lambda: inputs, work)


def _everywhere(
    run: Context, target: TargetProfile, archs: Archs, stage: CompareStage, begun: Begun
) -> dict[str, MeasuredThere]:
    space = run.subject.space
    items = [network_item(space.network(arch), arch, target) for arch in map(space.canonical, archs.values())]
    protocol = read_document(Protocol, stage.protocol)
    with run.fleet().replaying(target.name, begun.newest):
        records = run.fleet().measure(
            target, items, protocol, lambda p: run.tell(f"measure every network on {target.name}", p)
        )
    return {
        key: {"p50": record.p50, "p90": record.p90, "simulated": target.simulated}
        for key, record in zip(archs, records, strict=True)
    }
