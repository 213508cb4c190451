"""Steps from one subnet to better ones: single changes, and what becomes possible when a few go together.

A change that gains accuracy usually costs latency, and under a tight budget it needs another one that gives latency
back. All single changes of a subnet are assessed, feasible or not; what several of them would gain and cost
together is estimated by adding up, and the most promising combinations are assessed in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.search.separable import Slots
from ofa_deploy.space import GENE, Population

DEPTH = 3  # changes that go together at most
COMBINATIONS = 60  # that are tried of each number of changes
BEAM = 300  # that may grow by another change


class Moves:
    """The single changes of a space: another resolution or widths, another block at a slot, another depth, and one slot
    more with any block in it."""

    def __init__(self, slots: Slots) -> None:
        self._codec = slots.codec
        changes: list[dict[int, int]] = []
        for gene in range(slots.depth0):
            changes += [{gene: value} for value in range(slots.codec.choices[gene])]
        for slot in slots.all:
            changes += slot.changes
        for stage, members in enumerate(slots.stages):
            gene = slots.depth0 + stage
            for depth in range(slots.codec.choices[gene]):
                last = slots.all[max(i for i in members if slots.all[i].present[depth])]
                changes += [{gene: depth, **change} for change in last.changes]
        self._changed = np.zeros((len(changes), len(slots.codec.choices)), dtype=bool)
        self._to = np.zeros(self._changed.shape, dtype=GENE)
        for i, change in enumerate(changes):
            for gene, value in change.items():
                self._changed[i, gene], self._to[i, gene] = True, value

    def of(self, row: np.ndarray) -> Population:
        """All subnets one change away, each once."""
        changed = self._codec.canonicalise(np.where(self._changed, self._to, row))
        keys = {key: i for i, key in enumerate(map(bytes, changed)) if key != row.tobytes()}
        return changed[sorted(keys.values())]


@dataclass(frozen=True)
class Around:
    """A subnet and what its single changes bring.

    Attributes:
        row: the subnet.
        moves: the changed subnets, ``[M, G]``.
        gain: what each adds to the accuracy, ``[M]``.
        cost: what each adds to the excess of every constraint, ``[M, K]``.
        room: what may be added, ``[K]``.
    """

    row: np.ndarray
    moves: Population
    gain: np.ndarray
    cost: np.ndarray
    room: np.ndarray

    def combined(self) -> Population:
        """The most promising sets of two to ``DEPTH`` changes that touch different genes, as far as adding up tells.

        Sets that break a constraint are kept, too, while they grow: another change may make up for it.
        """
        count = len(self.moves)
        touched = (self.moves != self.row).astype(np.float32)
        apart = ~(touched @ touched.T > 0)
        prices, tags = self._prices(), np.random.default_rng(0).integers(0, 1 << 60, count)
        sets = _Sets(np.arange(count)[:, None], self.gain, self.cost, np.triu(apart), tags)
        found = []
        for _ in range(DEPTH - 1):
            gain = sets.gain[:, None] + self.gain
            allowed = sets.free.copy()
            for k, room in enumerate(self.room):
                allowed &= sets.cost[:, [k]] + self.cost[:, k] <= room
            fitting = _top(gain.ravel(), COMBINATIONS, allowed.ravel())
            found.append(self._rows(np.column_stack([sets.members[fitting // count], fitting % count])))
            worth = gain - (sets.cost @ prices)[:, None] - self.cost @ prices
            kept = _top(worth.ravel(), BEAM, sets.free.ravel())
            sets = sets.grown(kept // count, kept % count, self, apart, tags)
        return np.concatenate(found)

    def _prices(self) -> np.ndarray:
        """What a unit of each constraint's room is worth: the median gain for its cost."""
        prices = np.zeros(len(self.room))
        for k, cost in enumerate(self.cost.T):
            rising = cost > 0
            if rising.any():
                prices[k] = max(float(np.median(self.gain[rising] / cost[rising])), 0.0)
        return prices

    def _rows(self, members: np.ndarray) -> Population:
        rows = np.repeat(self.row[None], len(members), axis=0)
        for which in members.T:
            moves = self.moves[which]
            rows = np.where(moves != self.row, moves, rows)
        return rows


@dataclass(frozen=True)
class _Sets:
    """Sets of changes, all of one size: their members, what they gain and cost, what they can still take (``[B, M]``),
    and a number that is the same for the same members in another order."""

    members: np.ndarray
    gain: np.ndarray
    cost: np.ndarray
    free: np.ndarray
    tag: np.ndarray

    def grown(self, which: np.ndarray, by: np.ndarray, around: Around, apart: np.ndarray, tags: np.ndarray) -> _Sets:
        """Some of the sets, each with one more change; each result once."""
        _, first = np.unique(self.tag[which] + tags[by], return_index=True)
        which, by = which[np.sort(first)], by[np.sort(first)]
        return _Sets(
            np.column_stack([self.members[which], by]),
            self.gain[which] + around.gain[by],
            self.cost[which] + around.cost[by],
            apart[self.members[which]].all(axis=1) & apart[by],
            self.tag[which] + tags[by],
        )


def _top(values: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Positions of the largest values among the allowed ones, best first; of equals the first."""
    places = np.arange(len(values)) if allowed is None else np.flatnonzero(allowed)
    if len(places) > count:
        kept = values[places]
        places = places[kept >= np.partition(kept, len(kept) - count)[len(kept) - count]]
    return places[np.argsort(-values[places], kind="stable")][:count]
