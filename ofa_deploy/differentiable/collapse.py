"""What ends a search before its skip connections win; see ``recipe.CellSearch`` for the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa_deploy.differentiable.derivation import derive
from ofa_deploy.differentiable.recipe import CellSearch
from ofa_deploy.differentiable.search_document import Epoch


@dataclass(frozen=True)
class Stop:
    """A guard's decision.

    Attributes:
        guard: the recipe's key.
        epoch: from whose weights the cells are derived, counted from 1.
        why: for people.
    """

    guard: str
    epoch: int
    why: str


def should_stop(config: CellSearch, history: Sequence[Epoch]) -> Stop | None:
    """What the guards say after an epoch.

    Args:
        history: the epochs of the search so far; those in which the architecture was frozen count for nothing.
    """
    learned = [record for record in history if not record["frozen"]]
    if not learned:
        return None
    if config.stop_skips is not None and (stop := _skips(config.stop_skips, learned)):
        return stop
    return _eigenvalue(config, learned) if config.stop_eigenvalue is not None else None


def _skips(limit: int, learned: Sequence[Epoch]) -> Stop | None:
    skips = derive(learned[-1]["weights"]).skips
    if skips < limit:
        return None
    before = learned[-2] if len(learned) > 1 else learned[-1]
    why = f"the normal cell would have {skips} skip connections after epoch {learned[-1]['epoch']}"
    return Stop("stop_skips", before["epoch"], why)


def _eigenvalue(config: CellSearch, learned: Sequence[Epoch]) -> Stop | None:
    values, window = [record["eigenvalue"] for record in learned], config.window
    if len(values) < 2 * window or config.stop_eigenvalue is None:
        return None
    now, then = (sum(part) / window for part in (values[-window:], values[-2 * window : -window]))
    if then >= config.stop_eigenvalue * now:
        return None
    why = f"the dominant eigenvalue grew from {then:.3g} to {now:.3g} within {window} epochs"
    return Stop("stop_eigenvalue", learned[-1 - window]["epoch"], why)
