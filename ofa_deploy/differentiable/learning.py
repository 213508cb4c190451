"""Learning which choices are good, under constraints that hold in expectation.

Logits follow the natural gradient (Amari, Neural Computation 10, 1998; of a softmax it is the exponentiated gradient of
Kivinen & Warmuth, 1997): they hold the sum of what every choice was worth in every step, from which noise averages out
and by which choices can be weighed against each other. They have two parts. One is the task's. The other is the
constraints' expected excess times prices; a price rises while its constraint is exceeded and falls while there is
room (the method of multipliers; Platt & Barr, NIPS 1987), so that a budget costs as much as it must and no more. Where
the last step still exceeds one, steps on the excess alone follow until none does. Subnets are derived from the task's
part alone, under the constraints themselves: prices have done their work by then, which was to teach near the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.config import Plan
from ofa_deploy.differentiable.choices import Choices, Drawn, SumTable
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.gradient import Belief
from ofa_deploy.search.separable import Separable

RATE = 0.1  # of the logits
LIKELY = 0.01  # probabilities below count as this in the natural gradient, whose noise would be boundless
GIVEN_UP = 5.0  # no logit falls further below the highest one, so that no choice is given up for good
AVERAGED = 0.9  # decay of the size of the task's gradient
PRICE_RATE = 0.1  # of prices, per step and per excess; a price of 1 makes a constraint as strong as the task
STIFFNESS = 4.0  # what the excess adds to its price at once, which keeps prices from swinging
HEAT = (2.0, 0.2)  # of Gumbel's mixture, first and last
TOLD = 10  # steps from one belief to the next
SETTLING = 500  # steps on the excess alone, at most
DRAWN = 32  # random subnets of every belief
EARLY, LEAST = 0.5, 0.3  # until half of the steps are done, choices keep some entropy, at first this share of the most
SKIPPED = 0.5  # of the optional blocks may be left out while the constraints have room
ROOM = 0.1  # of a bound counts as room
GUARD = 2.0  # strength of a guard: the task's gradient has size 1
TINY = 1e-12

Loss = Callable[[Choices, Drawn], Tensor]


class Learning:
    """One course of learning; ``beliefs`` runs it."""

    def __init__(self, cost: Separable, loss: Loss, plan: Plan, seed: int) -> None:
        """Prepare.

        Args:
            cost: the constraints' excess.
            loss: of the task, for what is drawn.
        """
        self.choices, self.table = Choices(cost.slots), SumTable(cost)
        self.task = Choices(cost.slots)  # the task's part of the logits
        self.loss, self.plan = loss, plan
        self.generator = torch.Generator().manual_seed(seed)
        self.prices = torch.zeros(cost.constant.shape[1])
        self.costs = [_size(self._natural(excess)) for excess in self.choices.expected(self.table)]
        self.size = 0.0
        self.acted: list[dict[str, Any]] = []
        self.guarded: set[str] = set()

    def beliefs(self) -> Iterator[Belief]:
        """Learn, and say what is believed every few steps and at the end."""
        steps, losses = self.plan.gradient_steps, []
        for step in range(steps):
            losses.append(self._step(step))
            if step + 1 == steps:
                self._settle()
            if (step + 1) % TOLD == 0 or step + 1 == steps:
                yield self._belief(step + 1, sum(losses) / len(losses))
                losses.clear()

    def _step(self, step: int) -> float:
        done = step / self.plan.gradient_steps
        heat = HEAT[0] * (HEAT[1] / HEAT[0]) ** done
        task = self.loss(self.choices, Drawn(self.choices, self.plan.relaxation, heat, self.generator))
        if not torch.isfinite(task):
            raise OfaDeployError(
                f"search by gradient: the loss is not finite in step {step + 1}; is the supernet trained?"
            )
        learned = self._natural(task)
        now = _size(learned)
        self.size = AVERAGED * self.size + (1 - AVERAGED) * now if step else now
        excess = self.choices.expected(self.table)
        prices = (self.prices + STIFFNESS * excess.detach().clamp_min(0)) / torch.tensor(self.costs)
        guards = self._natural(self._guards(step, done, excess.detach()))
        paid = self._natural(prices @ excess)
        self.prices = (self.prices + PRICE_RATE * excess.detach()).clamp_min(0)
        self._move([g / max(self.size, TINY) + guard for g, guard in zip(learned, guards, strict=True)], task=True)
        self._move(paid)
        return task.item()

    def _natural(self, value: Tensor) -> list[Tensor]:
        """The natural gradient of a number, for every choice."""
        parameters = list(self.choices.parameters())
        if not value.requires_grad:
            return [torch.zeros_like(logits) for logits in parameters]
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            matters = self.choices.matters()
            return [
                torch.zeros_like(p) if g is None else g / p.softmax(0).clamp_min(LIKELY) / share.clamp_min(LIKELY)
                for p, g, share in zip(parameters, found, matters, strict=True)
            ]

    @torch.no_grad()
    def _move(self, gradients: list[Tensor], task: bool = False, settling: bool = False) -> None:
        for model in (self.choices, self.task) if task else (self.choices,):
            for logits, gradient in zip(model.parameters(), gradients, strict=True):
                logits.sub_(RATE * gradient)
        if not settling:
            for logits in self.choices.parameters():
                logits.clamp_min_(float(logits.max()) - GIVEN_UP)

    def _guards(self, step: int, done: float, excess: Tensor) -> Tensor:
        """What is added to the loss against collapse: choices that are made up before they were tried, and blocks that
        are left out though nothing asks for it."""
        entropy, skipped = self.choices.entropy(), self.choices.skipped()
        least, added = LEAST * max(0.0, 1 - done / EARLY), torch.zeros(())
        if entropy < least:
            self._act("entropy", step, f"choices were as good as made, with an entropy of {entropy.item():.2f}")
            added = added + GUARD * (least - entropy) / LEAST
        if skipped > SKIPPED and bool((excess < -ROOM).all()):
            share = f"{100 * skipped.item():.0f} %"
            self._act("skips", step, f"{share} of the optional blocks were left out though the constraints had room")
            added = added + GUARD * (skipped - SKIPPED) / SKIPPED
        return added

    def _act(self, guard: str, step: int, why: str) -> None:
        if guard not in self.guarded:
            self.guarded.add(guard)
            self.acted.append({"guard": guard, "step": step + 1, "why": why})

    def _settle(self) -> None:
        """Steps on the excess alone until the constraints hold in expectation."""
        for _ in range(SETTLING):
            excess = self.choices.expected(self.table)
            if not (excess > 0).any():
                return
            self._move(self._natural((excess.clamp_min(0) / torch.tensor(self.costs)).sum()), settling=True)

    @torch.no_grad()
    def _belief(self, step: int, loss: float) -> Belief:
        choices, acted = self.choices, self.acted
        self.acted, self.guarded = [], set()
        figures = {
            "step": step,
            "loss": loss,
            "entropy": float(choices.entropy()),
            "skipped": float(choices.skipped()),
            "excess": choices.expected(self.table).tolist(),
        }
        return Belief(self.task.worth(), choices.argmax(), choices.drawn(DRAWN, self.generator), figures, acted)


def _size(gradients: list[Tensor]) -> float:
    """Root mean square over the choices that have alternatives; never 0."""
    squares = [float(gradient.square().sum()) for gradient in gradients if len(gradient) > 1]
    return max((sum(squares) / max(len(squares), 1)) ** 0.5, TINY)
