"""``profile`` and ``audit``: measure a device, and check its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.api.common import Where, in_frame, opened, targets_in
from ofa_deploy.api.supernets import space_of
from ofa_deploy.deploy.audits import audit_command, audit_folder, keep_audit
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.latency import AuditStatistics, LatencyModel, LatencyTable, leave_one_out
from ofa_deploy.latency_models import load_model, table_file
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import CellSpace, Family

if TYPE_CHECKING:
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.fleet.auditing import Audit as Audited
    from ofa_deploy.store import Workspace

NETWORKS = 40  # networks that an audit measures


@dataclass(frozen=True)
class Profile:
    """A device's latency table.

    Attributes:
        table: the measurements; ``table.rows`` are those of blocks, ``table.networks`` those of whole networks.
        model: the latency model fitted on them.
        leave_one_out: how well the model predicts each network from the others: ``mape``, ``within_5`` and other
            fractions; None if there are too few networks.
        file: the table as a JSON file.
    """

    table: LatencyTable
    model: LatencyModel
    leave_one_out: AuditStatistics | None
    file: Path

    @property
    def flagged(self) -> int:
        """How many blocks were measured under doubtful conditions."""
        return sum(bool(row.flags) for row in self.table.rows.values())


@dataclass(frozen=True)
class Audit:
    """How accurate a device's predictions are.

    Attributes:
        answer: what ``audit.json`` holds: fractions such as ``mape``, ``bias``, ``within_5`` and ``coverage_95``, the
            ``verdict``, and each network's prediction and measurement in ms.
        folder: the folder with ``audit.json``, ``audit.md`` and ``audit.html``.
        found: the answer as a record.
    """

    answer: dict[str, Any]
    folder: Path
    found: Audited

    def _repr_html_(self) -> str:
        return in_frame((self.folder / "audit.html").read_text(encoding="utf-8"))


def _space(
    supernet: Subject | None, space: str | Family | None, resolutions: Sequence[int], where: Workspace, progress: Tell
) -> Family:
    return space_of(supernet.space if supernet else space, tuple(resolutions), where, progress)


def profile(
    target: str = "local",
    *,
    supernet: Subject | None = None,
    space: str | Family | None = None,
    resolutions: Sequence[int] = (),
    networks: int = 20,
    few: int | None = None,
    refresh: bool = False,
    precision: str | None = None,
    se: float = 0.01,
    cap_s: float = 120.0,
    seed: int = 0,
    workspace: Where = None,
    progress: Tell = silent,
) -> Profile:
    """Measure a device, and keep its latency table in the workspace.

    The function measures every block of a search space that the table lacks, and some whole networks.

    Args:
        target: the device: ``local``, or a registered one.
        supernet: what ``load_supernet`` returned; its space is measured.
        space: a preset's name, a YAML file or a space. The default is the space of the newest supernet.
        resolutions: the input sizes to measure, in pixels; by default all of the space.
        networks: the number of whole networks to measure.
        few: measure no blocks, only this many networks, chosen to teach the model most.
        refresh: measure everything again.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the one of the device's profile.
        se: measure each item until its relative standard error is this small, a fraction.
        cap_s: stop measuring an item after this many seconds.
        seed: random seed of the choice of networks.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.

    Returns:
        The table, the latency model fitted on it, and its leave-one-out error.

    Raises:
        UsageError: there is no such device or space.
        DeviceUnavailable: the device does not answer.

    Example:
        >>> table = ofa_deploy.profile("local", space="tiny_16").table
        >>> {key: row.p50 for key, row in table.rows.items()}  # ms
    """
    where = opened(workspace)
    (found,) = targets_in(target, precision, where, measure=True)
    chosen = _space(supernet, space, resolutions, where, progress)
    from ofa_deploy.fleet.profiling import profile as measure  # and with it ONNX

    with Fleet.open(where) as fleet:
        table = measure(
            fleet,
            where,
            found,
            chosen,
            few or networks,
            refresh,
            seed,
            Protocol(se=se, cap_s=cap_s),
            lambda p: progress(f"profile {target}", p),
            few is not None,
        )
    model = load_model(where, found, chosen)
    return Profile(table, model, leave_one_out(model), table_file(where, table))


def audit(
    target: str = "local",
    *,
    supernet: Subject | None = None,
    space: str | Family | None = None,
    resolutions: Sequence[int] = (),
    networks: int = NETWORKS,
    statistic: str = "p50",
    precision: str | None = None,
    se: float = 0.01,
    cap_s: float = 120.0,
    seed: int = 0,
    output: str | Path | None = None,
    workspace: Where = None,
    progress: Tell = silent,
    options: Mapping[str, object] | None = None,
) -> Audit:
    """Check how accurate a device's latency predictions are.

    The function measures networks that the latency model was not fitted on, and compares them with its predictions.

    Args:
        target: the device, which must be profiled.
        supernet: what ``load_supernet`` returned; networks of its space are measured.
        space: a preset's name, a YAML file or a space. The default is the space of the newest supernet.
        resolutions: the input sizes of the networks, in pixels; by default all of the space.
        networks: the number of networks to measure, at least 3.
        statistic: the latency percentile to check: ``p50``, ``p90`` or ``p99``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the one of the device's profile.
        se: measure each network until its relative standard error is this small, a fraction.
        cap_s: stop measuring a network after this many seconds.
        seed: random seed of the choice of networks.
        output: the folder to write; by default ``audits/…`` in the workspace.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.
        options: options of the command that repeats the audit, beside those above.

    Returns:
        The answer and its folder. In a notebook it shows the audit's page.

    Raises:
        OpNotProfiled: the device was not profiled for this space.
        DeviceUnavailable: the device does not answer.

    Example:
        >>> ofa_deploy.audit("local", networks=12).answer["mape"]
        0.031
    """
    where = opened(workspace)
    (found,) = targets_in(target, precision, where, measure=True)
    chosen = _space(supernet, space, resolutions, where, progress)
    folder = audit_folder(Path(output) if output else where.audits / "-".join(filter(None, [found.name, precision])))
    asked = {"resolution": tuple(resolutions), "networks": networks, "seed": seed, "se": se, "cap-s": cap_s}
    asked |= {"precision": precision, **(options or {"space": space if isinstance(space, str) else None})}
    command = audit_command(found, chosen, statistic, asked)
    measuring = (statistic, Protocol(se=se, cap_s=cap_s), lambda p: progress(f"audit {target}", p))
    with Fleet.open(where) as fleet:
        from ofa_deploy.fleet.auditing import audit as measured

        if isinstance(chosen, CellSpace):  # no other command measures cells
            ready_model(fleet, where, found, chosen, *measuring)
        audited = measured(fleet, where, found, chosen, networks, seed, *measuring)
        answer = audited.to_json()
        answer |= {"genotype": chosen.genotype.to_json()} if isinstance(chosen, CellSpace) else {}
    answer["command"] = command
    keep_audit(where, answer, folder)
    return Audit(answer, folder, audited)
