"""The hand-picked networks that were trained in a workspace; no torch, so that lists and plots come at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.config import TargetProfile
from ofa_deploy.documents.baselines_document import HandPicked
from ofa_deploy.space import SearchSpace, load_space, network_macs, network_params, picked_name
from ofa_deploy.store import Workspace

KIND = "baseline"  # of their artefacts and evaluations
TEST = "test"  # the split, as the store names it


@dataclass(frozen=True)
class Baseline:
    """A hand-picked network that was trained.

    Attributes:
        space: of this one network.
        file: a supernet's file of that space: every command that takes a supernet takes it.
        recipe: which of the two recipes was better on the validation images.
        epochs: of that.
        valid: by recipe, the accuracy on ``valid_n`` validation images, a fraction.
        seconds: that both trainings took.
    """

    space: SearchSpace
    file: Path
    recipe: str
    epochs: int
    valid: dict[str, float]
    valid_n: int
    seconds: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        return picked_name(self.space)


def known_baselines(workspace: Workspace, images: Mapping[str, object] | None = None) -> list[Baseline]:
    """The hand-picked networks that were trained here, oldest first; those on some images where they are given.

    Of one that was trained for other epochs since, or with another seed, the newest.

    Args:
        images: their fingerprint.
    """
    found = dict[str, Baseline]()
    for kept in workspace.store.artefacts(KIND):
        facts = {**kept.meta, "file": Path(kept.path), "space": load_space(kept.meta["space"])}
        trained_on = facts.pop("fingerprint")
        if facts["file"].is_file() and (images is None or trained_on == images):
            found[facts["space"].name] = Baseline(**facts)
    return list(found.values())


def measured_baselines(workspace: Workspace, target: TargetProfile, images: Mapping[str, object]) -> list[HandPicked]:
    """Those of some images that were measured on a target in its precision, each as it was measured last."""
    found = []
    for one in known_baselines(workspace, images):
        arch, network = one.space.largest, one.space.network(one.space.largest)
        known = workspace.store.architectures.one(arch.key)
        test = [judged for judged in known.evaluations if judged.split == TEST]
        here = [
            row
            for row in known.measurements
            if row.device == target.name and (row.condition or {}).get("precision") == target.precision
        ]
        if test and here:
            found.append(
                HandPicked(
                    name=one.name,
                    key=arch.key,
                    macs=network_macs(network),
                    params=network_params(network),
                    recipe=one.recipe,
                    epochs=one.epochs,
                    valid=one.valid,
                    valid_n=one.valid_n,
                    accuracy=test[-1].accuracy,
                    n=test[-1].n,
                    measured_ms=here[-1].p50,
                    se=here[-1].se,
                    file=str(one.file),
                )
            )
    return found
