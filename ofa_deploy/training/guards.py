"""What stops a training that no longer makes sense, with one line that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ofa_deploy.errors import OfaDeployError

DIVERGED = 50  # steps in a row
COLLAPSED = 100
KEPT = "the last good checkpoint is kept"


def tally(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Sums over a batch, exact in double precision, that tell its accuracy and whether all predictions are equal; those
    of its parts add up to its own."""
    predicted = logits.detach().argmax(1)
    sums = torch.stack([predicted == labels, predicted, predicted.square(), torch.ones_like(predicted)]).sum(1)
    return dict(zip(("hits", "sum", "squares", "count"), sums.tolist(), strict=True))


class Guards:
    """Looks at every step's figures."""

    def __init__(self, classes: int, watch_from: int) -> None:
        """Predictions are watched from a step on: before that, equal ones are no sign of anything."""
        self._classes, self._watch_from = classes, watch_from
        self._lowest, self._level = math.inf, math.nan
        self._high = 0
        self._equal: dict[str, tuple[int, float]] = {}

    @property
    def suspicious(self) -> bool:
        """Whether something is wrong, if not for long enough to stop: nothing should be saved now."""
        return self._high > 0 or any(4 * steps > COLLAPSED for steps, _ in self._equal.values())

    def check(
        self, step: int, losses: Mapping[str, float], tallies: Mapping[str, Mapping[str, float]], lr: float
    ) -> None:
        """Look at a step, counted from 1, before it changes the weights.

        Args:
            losses: by name.
            tallies: by subnet, over the whole batch.
            lr: the recipe's, for the message.

        Raises:
            OfaDeployError: a loss is not finite; or for ``DIVERGED`` steps the loss on the labels was over twice what
                a guess, and what it was at best on average, gives; or for ``COLLAPSED`` steps a subnet saw one class
                in every image and was right no more often than a guess.
        """
        if not all(math.isfinite(value) for value in losses.values()):
            raise OfaDeployError(f"the loss is not finite at step {step}: lower lr in the recipe (now {lr}); {KEPT}")
        self._diverging(step, losses["loss"], lr)
        if step > self._watch_from:
            for name, tallied in tallies.items():
                self._collapsing(step, name, tallied, lr)

    def _diverging(self, step: int, loss: float, lr: float) -> None:
        self._level = loss if math.isnan(self._level) else 0.98 * self._level + 0.02 * loss
        bound = 2 * max(math.log(self._classes), min(self._lowest, self._level))
        self._lowest = min(self._lowest, self._level)
        self._high = self._high + 1 if loss > bound else 0
        if self._high >= DIVERGED:
            raise OfaDeployError(
                f"training diverges: the loss is {loss:.3g} at step {step}, above {bound:.3g} for {DIVERGED} steps; "
                f"lower lr in the recipe (now {lr}) or set clip_norm; {KEPT}"
            )

    def _collapsing(self, step: int, name: str, tallied: Mapping[str, float], lr: float) -> None:
        equal = tallied["count"] * tallied["squares"] == tallied["sum"] ** 2  # their variance is zero
        steps, hits = self._equal.get(name, (0, 0.0))
        steps, hits = (steps + 1, hits + tallied["hits"] / tallied["count"]) if equal else (0, 0.0)
        self._equal[name] = steps, hits
        if steps >= COLLAPSED and hits / steps <= 1.5 / self._classes:
            raise OfaDeployError(
                f"training has collapsed: the {name} subnet has seen one class in every image for {steps} steps, up to "
                f"step {step}; lower lr in the recipe (now {lr}), lengthen warmup_epochs or set clip_norm; {KEPT}"
            )
