"""The hand-picked networks that were trained in a workspace; no torch, so that lists and plots come at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.space import SearchSpace, load_space, picked_name
from ofa_deploy.store import Workspace

KIND = "baseline"  # of their artefacts and evaluations


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
