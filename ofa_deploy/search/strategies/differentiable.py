"""Search by gradient: the probabilities of all choices are learned on images, and subnets are derived from them.

While it learns, the likeliest subnet is repaired into the constraints and assessed, again and again. At the end come
the best subnets that meet the constraints by what the choices were worth (the same knapsack that ``exact`` solves, with
what was learned in the place of accuracies), random draws, and the local moves by which ``evolution`` climbs, from the
best few of those. It makes no children and begins nowhere else: what it finds comes from the gradient and its
neighbourhood.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.errors import UsageError
from ofa_deploy.search.gradient import Belief
from ofa_deploy.search.moves import Moves
from ofa_deploy.search.separable import Separable
from ofa_deploy.search.setting import Setting
from ofa_deploy.search.strategies.evolution import combined
from ofa_deploy.space import Population

SAMPLED = 64  # random subnets that show by how much bounds exceed the sums over blocks
ON_THE_WAY = 4  # repairs of a likeliest subnet, on different ways, that are assessed while it learns
DERIVED = 64  # subnets that are derived at the end
CLIMBS = 4  # of the best of them, so many climb


def differentiable(setting: Setting) -> Iterator[Population]:
    """Learn, derive, climb."""
    learn = setting.problem.gradient
    if learn is None:
        raise UsageError(
            "strategy differentiable needs a supernet and its images; choose another strategy, or give --supernet"
        )
    yield setting.anchors
    yield setting.random(min(SAMPLED, max(setting.evaluations // 16, 8)))
    cost, last = setting.tightened(), None
    derived = setting.anchors[:0]
    for last in learn(cost, int(setting.rng.integers(1 << 31))):
        rows = setting.repaired(np.repeat(last.argmax, ON_THE_WAY, axis=0))
        yield rows
        derived = np.concatenate([derived, rows])
        setting.course.append(_told(setting, last, cost, rows))
        setting.acted += last.acted
    if last is not None:
        rows = np.concatenate([setting.solved(last.worth, DERIVED).rows, setting.repaired(last.drawn)])
        yield rows
        derived = np.concatenate([derived, rows])
    yield from _climb(setting, np.unique(derived, axis=0))


def _told(setting: Setting, belief: Belief, cost: Separable, rows: Population) -> dict[str, object]:
    """A point of the course: the figures, the expected latency, and the best predicted accuracy of the repaired."""
    told = {**belief.figures, "accuracy": float(np.nan_to_num(setting.memory.of(rows)[:, 1]).max())}
    bound = setting.problem.constraints.max_ms
    if bound is not None:  # the excess has room for what an upper bound lies above the mean; the mean itself has none
        room = float((cost.constant - setting.cost.constant)[0, 0])
        told["expected_ms"] = float(bound * (1 + belief.figures["excess"][0] - room))
    return {**told, "excess": dict(zip(setting.problem.names, belief.figures["excess"], strict=True))}


def _climb(setting: Setting, rows: Population) -> Iterator[Population]:
    """The best of some assessed subnets, each as far up as local moves lead."""
    moves = Moves(setting.slots)
    order = np.argsort(-setting.memory.of(rows)[:, 0], kind="stable")
    for row in rows[order[:CLIMBS]]:
        best: np.ndarray | None = None
        while best is None or (best != row).any():
            row = row if best is None else best
            near = moves.of(row)
            yield near
            far = combined(setting, row[None], [near])[0]
            yield far
            candidates = np.concatenate([row[None], near, far])
            best = candidates[setting.memory.of(candidates)[:, 0].argmax()]
