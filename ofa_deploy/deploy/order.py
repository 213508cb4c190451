"""What one extraction rests on: everything is resolved that a user may leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa_deploy.config import Constraints, Plan, TargetProfile
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.earlier_answers import Earlier
from ofa_deploy.deploy.finetuning import Tuning
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.fleet import Protocol
from ofa_deploy.latency import Measurement
from ofa_deploy.space import Arch

BY_DEFAULT = Plan()


@dataclass(frozen=True)
class Order:
    """One extraction: for one target, in one precision.

    Attributes:
        constraints: their latency bound is absolute, however fast the device is now.
        plan: how it is searched.
        may_profile: whether a target without a table is profiled first.
        front: the subnets of a front that was searched before; the finalists are taken from them, without a search.
        tuning: how the best ``tuned`` finalists that fit are trained on, before the best of these is chosen.
        earlier: answers to earlier questions. Those that are expected to be more accurate than what was found are
            measured as well, so that the answer is not worse than they are.
        spread: takes the place of the latency bound: it is derived from the device's level now, and again when that
            moves, so that it can be met.
        session: what was measured on the device within the last seconds. Where it shows the device's level, that is not
            measured again.
    """

    subject: Subject
    target: TargetProfile
    constraints: Constraints
    seed: int = 0
    plan: Plan = BY_DEFAULT
    may_profile: bool = True
    protocol: Protocol | None = None
    front: Sequence[Arch] = ()
    tuning: Tuning | None = None
    tuned: int = 0
    earlier: Sequence[Earlier] = ()
    spread: Spread | None = None
    session: Sequence[Measurement] = ()
