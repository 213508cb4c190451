"""The best subnets where the objective and the constraints are sums over blocks, and a bound that no subnet exceeds.

A multiple-choice knapsack (Kellerer, Pferschy & Pisinger, Knapsack Problems, 2004, ch. 11) for every resolution and
width. Prices on the constraints give, by Lagrange, an upper bound and for every choice the *loss* against the best
choice at these prices. A feasible subnet is worth the bound less its losses and less the price of the room it leaves,
so the subnets whose losses add up to no more than g contain all that are within g of the bound. They are enumerated for
a growing g until enough of them are feasible: the best of those is then proven to be the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from ofa_deploy.search.separable import Separable, Slots
from ofa_deploy.space import GENE, Population

BISECTIONS = 24
SWEEPS = 3  # over several constraints' prices
FIRST_GAP = 1e-3  # of the objective's range
GROWTH = 1.7
DOUBLINGS = 8  # of prices, by 4, before they are bisected
PARTIAL = 200_000  # subnets that are enumerated at once
TOLERANCE = 1e-9  # of rounding, in constraints as fractions of their bounds

Check = Callable[[Population], np.ndarray]


@dataclass(frozen=True)
class Solution:
    """What is known of an additive problem.

    Attributes:
        rows: the best feasible subnets, best first.
        values: their objective.
        bound: what no feasible subnet exceeds; −inf where the tables themselves prove that there is none.
        proven: whether the first row is the optimum: nothing better was left out, or could not be enumerated.
    """

    rows: Population
    values: np.ndarray
    bound: float
    proven: bool


def solve(score: Separable, cost: Separable, keep: int = 1, feasible: Check | None = None) -> Solution:
    """The best ``keep`` subnets by ``score`` (K = 1) for which no value of ``cost`` is above 0.

    Args:
        feasible: what must hold besides, ``[N] → bool[N]``.
    """
    rows, values = np.zeros((0, len(score.slots.codec.choices)), dtype=GENE), np.zeros(0)
    prices, hopeless = _prices(score, cost)
    losses = _losses(score, cost, prices)
    losses = replace(losses, bounds=np.where(hopeless, -np.inf, losses.bounds))
    if losses.top == -np.inf:
        return Solution(rows, values, -np.inf, True)
    gap, bound = FIRST_GAP * max(float(score.spread[0]), 1e-9), losses.top
    while (found := losses.within(gap)) is not None:
        rows, values = found.best(losses.slots, keep, feasible)
        bound = max(losses.top - gap, float(values.max(initial=-np.inf)))
        if (values >= losses.top - gap).sum() == keep or gap > losses.most:
            bound = float(values.max(initial=-np.inf))
            break
        gap *= GROWTH
    proven = bool(len(values) and values[0] >= bound) or bound == -np.inf
    return Solution(rows, values, bound, proven)


def least(cost: Separable) -> tuple[Population, np.ndarray]:
    """For every resolution and width, the subnet with the least of a function (K = 1), and that value."""
    nothing = replace(cost, constant=np.zeros_like(cost.constant), value=np.zeros_like(cost.value))
    losses = _losses(nothing, cost, np.ones_like(cost.constant))
    return losses.best(), -losses.bounds


@dataclass(frozen=True)
class _Losses:
    """What is lost, at prices, by each choice against the best one.

    Attributes:
        bounds: of the objective, for every resolution and width.
        slot: ``[sizes, slots, C]``, inf for choices that a slot does not have.
        depth: for every stage ``[sizes, depths]``.
    """

    score: Separable
    cost: Separable
    bounds: np.ndarray
    slot: np.ndarray
    depth: list[np.ndarray]

    @property
    def slots(self) -> Slots:
        """The genes."""
        return self.score.slots

    @property
    def top(self) -> float:
        """The best bound."""
        return float(self.bounds.max())

    @property
    def most(self) -> float:
        """No subnet loses more against the best bound."""
        finite = np.where(np.isfinite(self.slot), self.slot, 0.0)
        known = self.bounds[np.isfinite(self.bounds)]
        inside = finite.max(axis=(0, 2)).sum() + sum(float(depth.max()) for depth in self.depth)
        return float(inside + self.top - known.min())

    def best(self) -> Population:
        """The subnet that loses nothing, for every resolution and width."""
        depths = np.array([depth.argmin(axis=1) for depth in self.depth], dtype=int).reshape(-1, len(self.bounds)).T
        rows = self.slots.rows(self.slot.argmin(axis=2), depths)
        rows[:, : self.slots.depth0] = self.slots.size_genes(np.arange(len(rows)))
        return self.slots.codec.canonicalise(rows)

    def within(self, gap: float) -> _Partial | None:
        """All subnets that lose at most ``gap`` against the best bound and keep within the costs; None where there are
        too many to look at."""
        found, room = [], PARTIAL
        for size in np.flatnonzero(self.bounds >= self.top - gap):
            part = self._of_size(int(size), gap - (self.top - self.bounds[size]), room)
            if part is None:
                return None
            room -= len(part.loss)
            found.append(part.only(np.all(part.sums[:, 1:] <= TOLERANCE, axis=1)))
        return _Partial.all(found)

    def _of_size(self, size: int, gap: float, room: int) -> _Partial | None:
        start = np.concatenate([self.score.constant[size], self.cost.constant[size]])[None]
        whole = _Partial(np.zeros(1), start, np.array([[size]], dtype=np.int16))
        for stage, members in enumerate(self.slots.stages):
            parts = []
            for depth, loss in enumerate(self.depth[stage][size]):
                if loss <= gap:
                    part = self._of_stage(size, members, depth, float(loss), gap)
                    if part is None:
                        return None
                    parts.append(part)
            stages = _Partial.all(parts)
            joined = whole.joined(stages.only(np.argsort(stages.loss, kind="stable")), gap, room)
            if joined is None:
                return None
            whole = joined
        return whole

    def _of_stage(self, size: int, members: list[int], depth: int, loss: float, gap: float) -> _Partial | None:
        """A stage at one depth: the depth's gene, then the choices at its slots."""
        kinds = 1 + self.cost.constant.shape[1]
        part: _Partial | None = _Partial(np.array([loss]), np.zeros((1, kinds)), np.array([[depth]], dtype=np.int16))
        for i in members:
            if part is None:
                return None
            slot, picks = self.slots.all[i], np.array([self.slots.C])
            losses = np.zeros(1)
            if slot.present[depth]:
                picks = np.argsort(self.slot[size, i], kind="stable")[: slot.choices]
                losses = self.slot[size, i][picks]
            sums = np.concatenate([self.score.value[size, i, picks], self.cost.value[size, i, picks]], axis=1)
            part = part.joined(_Partial(losses, sums, picks[:, None].astype(np.int16)), gap, PARTIAL)
        return part


@dataclass(frozen=True)
class _Partial:
    """Choices for some of the genes: what each loses, the score and the costs that it adds up to, and the choices."""

    loss: np.ndarray
    sums: np.ndarray
    picks: np.ndarray

    @classmethod
    def all(cls, parts: list[_Partial]) -> _Partial:
        """One after another."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def only(self, which: np.ndarray) -> _Partial:
        """Some of them."""
        return _Partial(self.loss[which], self.sums[which], self.picks[which])

    def joined(self, other: _Partial, gap: float, room: int) -> _Partial | None:
        """All pairs that lose at most ``gap``; None where there are more than ``room``. The other's losses rise."""
        counts = np.searchsorted(other.loss, gap - self.loss, side="right")
        if counts.sum() > room:
            return None
        mine = np.repeat(np.arange(len(counts)), counts)
        theirs = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
        picks = np.concatenate([self.picks[mine], other.picks[theirs]], axis=1)
        return _Partial(self.loss[mine] + other.loss[theirs], self.sums[mine] + other.sums[theirs], picks)

    def best(self, slots: Slots, keep: int, feasible: Check | None) -> tuple[Population, np.ndarray]:
        """The feasible ones of the highest scores, and these scores."""
        order = np.argsort(-self.sums[:, 0], kind="stable")
        values, rows = self.sums[order, 0], np.zeros((0, len(slots.codec.choices)), dtype=GENE)
        kept, start = np.zeros(0, dtype=int), 0
        while len(kept) < keep and start < len(order):
            part = order[start : start + 4 * keep]
            fresh = self._rows(slots, part)
            fits = np.ones(len(part), dtype=bool) if feasible is None else feasible(fresh)
            rows, kept = np.concatenate([rows, fresh[fits]]), np.append(kept, start + np.flatnonzero(fits))
            start += len(part)
        return rows[:keep], values[kept[:keep]]

    def _rows(self, slots: Slots, which: np.ndarray) -> Population:
        picks = self.picks[which]
        starts = np.cumsum([1] + [1 + len(members) for members in slots.stages])[:-1]
        rows = slots.rows(np.delete(picks, [0, *starts], axis=1), picks[:, starts])
        rows[:, : slots.depth0] = slots.size_genes(picks[:, 0])
        return rows


def _losses(score: Separable, cost: Separable, prices: np.ndarray) -> _Losses:
    """Losses at prices ``[sizes, K]``."""
    slots = score.slots
    worth = score.value[:, :, : slots.C, 0] - np.einsum("zsck,zk->zsc", cost.value[:, :, : slots.C], prices)
    for i, slot in enumerate(slots.all):
        worth[:, i, slot.choices :] = -np.inf
    best = worth.max(axis=2)
    bounds = score.constant[:, 0] - (prices * cost.constant).sum(axis=1)
    depth = []
    for members in slots.stages:
        present = np.array([slots.all[i].present for i in members], dtype=float)
        total = best[:, members] @ present
        bounds = bounds + total.max(axis=1)
        depth.append(total.max(axis=1, keepdims=True) - total)
    return _Losses(score, cost, bounds, best[..., None] - worth, depth)


def _prices(score: Separable, cost: Separable) -> tuple[np.ndarray, np.ndarray]:
    """Prices ``[sizes, K]`` at which the best subnet keeps within every constraint, found one by one by bisection (any
    prices give a bound, these a good one), and for which sizes a constraint cannot be kept at all."""
    prices = np.zeros_like(cost.constant)
    unit = max(float(score.spread[0]), 1e-9)
    hopeless = np.zeros(len(prices), dtype=bool)
    for k in range(prices.shape[1]):
        hopeless |= least(cost.only(k))[1] > TOLERANCE
    for _ in range(SWEEPS if prices.shape[1] > 1 else 1):
        for k in range(prices.shape[1]):
            low, high = np.zeros(len(prices)), np.full(len(prices), unit)
            for step in range(DOUBLINGS + BISECTIONS):
                prices[:, k] = high if step < DOUBLINGS else (low + high) / 2
                rows = _losses(score, cost, prices).best()
                kept = cost(rows)[:, k] <= TOLERANCE
                if step < DOUBLINGS:
                    low, high = np.where(kept, low, high), np.where(kept, high, 4 * high)
                else:
                    low, high = np.where(kept, low, prices[:, k]), np.where(kept, prices[:, k], high)
            prices[:, k] = high
    return prices, hopeless
