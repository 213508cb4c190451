"""What the stages of a pipeline share: its targets, its supernet, the devices, and its remembered units of work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import TypeVar, cast

import yaml

from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.deploy.subject import Subject, find_supernet, load_subject
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import write_atomic
from ofa_deploy.fleet import Fleet, resolve_target
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.json_types import JSON
from ofa_deploy.latency import LatencyTable
from ofa_deploy.latency_models import load_table
from ofa_deploy.notices import Tell
from ofa_deploy.pipeline.document import OnTargets, PipelineDocument
from ofa_deploy.pipeline.outcome import Outcome, Unit
from ofa_deploy.pipeline.remembered import Begun, Memory, digest
from ofa_deploy.store import Workspace

LATER = ("precision", "front", "darts")  # keys that earlier versions did not have: without them a stage is unchanged
EVERYWHERE = "local"  # the target of a pipeline that names none
OutputsT = TypeVar("OutputsT", bound=Mapping[str, object] | str)  # what a unit leaves is remembered as JSON


class Context:
    """One pass over a pipeline's stages.

    Attributes:
        path: the supernet's file: that of the train or import stage, or what other commands would take.
        targets: the pipeline's own, by name.
        audits: of targets, by name.
        until: of targets, by name, the ``id`` of the newest measurement that extractions rest on.
    """

    def __init__(self, document: PipelineDocument, workspace: Workspace, tell: Tell, dry: bool) -> None:
        self.document, self.workspace, self.tell, self.dry = document, workspace, tell, dry
        self.folder = workspace.bundles / document.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.memory = Memory(self.folder / "pipeline.json")
        self.outcome = Outcome(document.name, self.folder)
        self.targets = {name: self._declared(name, changes) for name, changes in document.targets.items()}
        self.audits: dict[str, dict[str, JSON]] = {}
        self.until: dict[str, int] = {}
        self.path = find_supernet(workspace, None)
        self._fleets: list[Fleet] = []
        self._subject: Subject | None = None

    def _declared(self, name: str, changes: Mapping[str, JSON]) -> TargetProfile:
        """A target of the pipeline's own, kept as a profile so that other commands find it."""
        if not changes:
            return resolve_target(name, self.workspace, measure=True)
        base = read_profile(str(changes.get("profile", name))).model_dump(mode="json")
        asked = {**base, **{k: v for k, v in changes.items() if k != "profile"}, "name": name}
        target = read_document(TargetProfile, asked)
        write_atomic(self.workspace.targets / f"{name}.yaml", yaml.safe_dump(asked, sort_keys=False).encode())
        return target if target.here else resolve_target(name, self.workspace, measure=True)

    def target(self, name: str) -> TargetProfile:
        """A target of the pipeline's own, or of the workspace."""
        return self.targets[name] if name in self.targets else resolve_target(name, self.workspace, measure=True)

    def names(self, stage: OnTargets) -> tuple[str, ...]:
        """On which targets a stage works."""
        return stage.named or tuple(self.targets) or (EVERYWHERE,)

    def fleet(self, lane: int = 0) -> Fleet:
        """Started when the first unit needs a device. The first starts agents on this machine, one at a time; others
        are for devices that measure meanwhile."""
        while len(self._fleets) <= lane:
            self._fleets.append(Fleet.open(self.workspace))
        return self._fleets[lane]

    @property
    def subject(self) -> Subject:
        """The supernet, loaded when the first unit needs it."""
        if self._subject is None:
            self._subject = load_subject(self.workspace, self.path, lambda p: self.tell("evaluate subnets", p))
        return self._subject

    def close(self) -> None:
        """Stop what was started."""
        for fleet in self._fleets:
            fleet.close()

    def unit(
        self,
        name: str,
        target: str | None,
        inputs: Callable[[], object],
        work: Callable[[Begun], OutputsT],
        lasts: Callable[[OutputsT], bool] = lambda outputs: True,
    ) -> OutputsT | None:
        """Do a unit of work, unless it was done with these inputs and what it left is still there.

        Args:
            target: on which it works; None where all others rest on it.
            work: called with when the unit was begun first.

        Returns:
            What it left; None where it was not done.
        """
        if (reason := self.outcome.blocked(target)) is not None:
            self.outcome.add(Unit(name, target, "would run" if self.dry else "not run", reason))
            return None
        began = monotonic()
        try:
            given = inputs()
            kept = cast("OutputsT | None", self.memory.outputs(name, given))
            if kept is not None and lasts(kept):
                self.outcome.add(Unit(name, target, "skipped", "unchanged"))
                self.tell(f"{name}: unchanged, skipped", {})
                return kept
            if self.dry:
                self.outcome.add(Unit(name, target, "would run", "new or changed"))
                return None
            begun = self.memory.begin(name, given, self.workspace.store.newest_measurement(target) if target else 0)
            outputs = work(begun)
            self.memory.keep(name, inputs(), cast("JSON", outputs))  # a unit may have measured what it rests on
        except OfaDeployError as error:
            self.outcome.add(Unit(name, target, "failed", str(error), monotonic() - began, error))
            return None
        self.outcome.add(Unit(name, target, "done", "", monotonic() - began))
        return outputs

    def known(self, target: TargetProfile, since: int | None = None) -> Workspace:
        """The workspace as the target's profile and audit left it; without these, as it was when a unit began."""
        until = self.until.get(target.name, since)
        return self.workspace if until is None else self.workspace.as_of(target.name, until)

    def rests_on(self, target: TargetProfile) -> dict[str, object]:
        """What every unit on a profiled target has in common."""
        table, audited = load_table(self.known(target), target), self.audits.get(target.name)
        networks = [row.to_json() for row in table.networks.values()] if target.name in self.until else None
        return {
            "supernet": file_sha256(self.path),
            "target": target.model_dump(),
            "table": rows_hash(table),
            "networks": networks,
            "audit": digest(audited) if audited else None,
        }


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_hash(table: LatencyTable) -> str:
    """Of the blocks alone: measuring finalists adds networks to a table, and must not make it count as changed."""
    return digest([row.to_json() for row in table.rows.values()])


def shared(stage: OnTargets) -> dict[str, object]:
    """What a stage asks of each of its targets and budgets."""
    asked = stage.model_dump(exclude={"target", "targets", "max_ms", "spread"})
    return {name: value for name, value in asked.items() if value or name not in LATER}
