"""How fast a device runs blocks: multiply-accumulates per millisecond of a small grid of kinds, widths and kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ofa_deploy.blocks import OpSpec, counts
from ofa_deploy.blocks.kinds import KINDS, Kernel, StageKind
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.latency_models import load_table
from ofa_deploy.notices import Tell
from ofa_deploy.space import SearchSpace, StageSpec
from ofa_deploy.store import Workspace

WIDTHS = (16, 32, 64, 128)  # the first are measured first; they say which wider blocks may fit
FASTER = 2.0  # a wide block is assumed to reach at most this many times the rate of the best narrow one
LEAST = 0.05  # at least this share of a block's latency is its own; the rest may be the call's
CAP_S = 20.0  # seconds that measuring a chunk of blocks may take


@dataclass(frozen=True)
class Choice:
    """What a block is made of; its input and output have ``width`` channels and ``side`` pixels a side."""

    kind: str
    side: int
    width: int
    kernel: Kernel
    expand: float
    act: str = "relu"
    se: bool = False

    @property
    def op(self) -> OpSpec:
        """The block, as a stage of a space has it after its first one."""
        stage = StageSpec(self.width, 1, self.act, self.se, (2,), (self.kernel,), (self.expand,), self.kind)
        space = SearchSpace("grid", (stage,), (self.side,), stem_stride=1, first_block=False)
        return space.block(0, 1, self.side, 1.0, self.kernel, self.expand)


@dataclass(frozen=True)
class Rate:
    """A block that was measured alone.

    Attributes:
        ms: median latency without that of a call, which a network pays once.
    """

    choice: Choice
    ms: float

    @property
    def rate(self) -> float:
        """Million multiply-accumulates per ms."""
        return counts.macs(self.choice.op.block) / 1e6 / self.ms


def grid(side: int, widths: Iterable[int]) -> list[Choice]:
    """Blocks of every kind at one shape: two kernels and two expand ratios of each.

    Kinds that begin networks are left out, and those of attention, which need many images to learn from.
    """
    found = []
    for name, kind in KINDS.items():
        if not isinstance(kind, StageKind) or kind.attends or kind.optional:
            continue
        kernels: tuple[Kernel, ...] = ((0, 3), (3, 3)) if kind.pairs else (3, 5)
        outward = kind.expanded(1, 2) == 2  # the ratio multiplies the output, and says how narrow a block is inside
        expands = (1.0,) if not kind.expands else (0.5, 1.0) if outward else (2.0, 4.0)
        try:
            kind.check_stage(kernels, expands, 1, False)
        except UsageError:  # such as one that has to stride
            continue
        found += [Choice(name, side, width, k, e) for width in widths for k in kernels for e in expands]
    return found


@dataclass(frozen=True)
class Bench:
    """Where blocks are measured."""

    fleet: Fleet
    workspace: Workspace
    target: TargetProfile
    tell: Tell

    def times(self, choices: Sequence[Choice], what: str) -> list[float]:
        """Median latencies of blocks alone in ms; only those that the target's table lacks are measured."""
        from ofa_deploy.fleet.profiling import measure_blocks  # and with it ONNX

        ops, table = [choice.op for choice in choices], load_table(self.workspace, self.target)
        if table.missing(op.key for op in ops):
            place = (self.fleet, self.workspace, self.target, ops)
            table = measure_blocks(*place, Protocol(cap_s=CAP_S), lambda p: self.tell(what, p))
        return [table.rows[op.key].p50 for op in ops]

    def rates(self, choices: Sequence[Choice], call_ms: float, what: str) -> list[Rate]:
        """The rates of blocks, from their latencies without that of a call."""
        times = self.times(choices, what)
        return [Rate(one, max(ms - call_ms, LEAST * ms)) for one, ms in zip(choices, times, strict=True)]


def measure_rates(bench: Bench, sides: Sequence[int], max_ms: float) -> tuple[list[Rate], float]:
    """Measure the grid at the shapes of stages. Blocks that could not run in ``max_ms`` even at ``FASTER`` times the
    rate of the best narrow block are left out.

    Returns:
        The rates, and what a call takes in ms: the latency of a tiny block.
    """
    least, distinct = Choice("conv", min(sides), 8, 3, 1.0), sorted(set(sides), reverse=True)
    first = [choice for side in distinct for choice in grid(side, WIDTHS[:1])]
    call_ms = bench.times([least, *first], "measure blocks")[0]
    narrow = bench.rates(first, call_ms, "measure blocks")
    best = max(rate.rate for rate in narrow)
    wide = [choice for side in distinct for choice in grid(side, WIDTHS[1:])]
    wide = [choice for choice in wide if counts.macs(choice.op.block) / 1e6 <= FASTER * best * max_ms]
    return narrow + bench.rates(wide, call_ms, "measure wider blocks"), call_ms


def width_within(rates: Sequence[Rate], most_ms: float) -> int:
    """The largest width, a multiple of 8 up to the widest that was measured, at which a block takes no more than so
    long; 8 where none does.

    Args:
        rates: of one kind, kernel and expand ratio, at several widths.
    """
    known = sorted((rate.choice.width, rate.ms) for rate in rates)
    widths = np.arange(8, known[-1][0] + 1, 8)
    measured, times = (np.log([one[i] for one in known]) for i in (0, 1))
    ms = np.exp(np.interp(np.log(widths), measured, times))  # a narrower block is never predicted to be slower
    fits = widths[ms <= most_ms]
    return int(fits[-1]) if len(fits) else 8
