"""Steps from one subnet to better ones: single changes, and what becomes possible when two or three go together.

A change that gains accuracy usually costs latency, and under a tight budget it needs another one that gives latency
back. All single changes of a subnet are assessed, feasible or not; what two or three of them would gain and cost
together is estimated by adding up, and the most promising combinations are assessed in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.search.tables import Slots
from ofa_deploy.space import Population

COMBINATIONS = 150  # that are tried of each kind
PAIRS = 300  # that are tried as the beginning of a triple


class Moves:
    """The single changes of a space: another resolution or width, another block at a slot, another depth, and one slot
    more with any block in it."""

    def __init__(self, slots: Slots) -> None:
        self._codec = slots.codec
        changes: list[dict[int, int]] = []
        for gene in (0, 1):
            changes += [{gene: value} for value in range(slots.codec.choices[gene])]
        for slot in slots.all:
            changes += [{slot.kernel: k, slot.expand: e} for k in range(slot.kernels) for e in range(slot.expands)]
        for stage, members in enumerate(slots.stages):
            gene = slots.depth0 + stage
            for depth in range(slots.codec.choices[gene]):
                last = slots.all[max(i for i in members if slots.all[i].present[depth])]
                blocks = ((k, e) for k in range(last.kernels) for e in range(last.expands))
                changes += [{gene: depth, last.kernel: k, last.expand: e} for k, e in blocks]
        self._changed = np.zeros((len(changes), len(slots.codec.choices)), dtype=bool)
        self._to = np.zeros(self._changed.shape, dtype=np.int8)
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
        """The most promising pairs and triples of changes that touch different genes, as far as adding up tells."""
        if len(self.moves) < 2:
            return self.moves[:0]
        touched = self.moves != self.row
        one, two = np.triu_indices(len(self.moves), 1)
        apart = ~(touched.astype(np.float32) @ touched.T.astype(np.float32) > 0)
        kept = apart[one, two]
        one, two = one[kept], two[kept]
        gain, cost = self.gain[one] + self.gain[two], self.cost[one] + self.cost[two]
        pairs = _top(gain, COMBINATIONS, (cost <= self.room).all(axis=1))
        start = _top(gain - (cost - self.room) @ self._prices(), PAIRS)
        one3, two3 = one[start], two[start]
        fits = apart[one3] & apart[two3]
        for k in range(len(self.room)):
            fits &= cost[start, k][:, None] + self.cost[:, k] <= self.room[k]
        triples = _top((gain[start][:, None] + self.gain).ravel(), COMBINATIONS, fits.ravel())
        first, third = np.divmod(triples, len(self.moves))
        both = self._with(self._with(self.row, one3[first]), third)
        return np.concatenate([self._with(self._with(self.row, one[pairs]), two[pairs]), both])

    def _prices(self) -> np.ndarray:
        """What a unit of each constraint's room is worth: the median gain for its cost."""
        prices = np.zeros(len(self.room))
        for k, cost in enumerate(self.cost.T):
            rising = cost > 0
            if rising.any():
                prices[k] = max(float(np.median(self.gain[rising] / cost[rising])), 0.0)
        return prices

    def _with(self, rows: Population, which: np.ndarray) -> Population:
        moves = self.moves[which]
        return np.where(moves != self.row, moves, rows)


def _top(values: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Positions of the largest values among the allowed ones, best first; of equals the first."""
    places = np.arange(len(values)) if allowed is None else np.flatnonzero(allowed)
    if len(places) > count:
        kept = values[places]
        places = places[kept >= np.partition(kept, len(kept) - count)[len(kept) - count]]
    return places[np.argsort(-values[places], kind="stable")][:count]
