"""A space composed for a device: at each shape the kinds of blocks that the device runs at the best rate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from ofa_deploy.blocks.kinds import stage_kind
from ofa_deploy.config import Constraints, TargetProfile
from ofa_deploy.deploy.block_rates import Bench, Rate, measure_rates, width_within
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.fleet import Fleet
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency_models import load_model, load_table
from ofa_deploy.notices import Tell
from ofa_deploy.search import Latency, Problem, fastest
from ofa_deploy.space import Population, PopulationCodec, SearchSpace, load_space
from ofa_deploy.store import Workspace

WITHIN = 0.7  # of the best rate: a kind, kernel or expand ratio that reaches this share is a choice
MOST_KINDS = 3  # in a stage: each has weights of its own
MOST_WIDTHS = 6  # in a stage: every combination is searched as a case of its own
DEPTHS = (3, 6)  # the least and the most that the deepest choice is
LAST_SIDE = 4  # in pixels: no stage reads images that are smaller
LARGE_SIDE = 16  # images of more pixels a side are halved by the stem
EASE = 1.5  # times the fastest block's latency is the least that a share can be
CHEAP = 1.03  # a better activation or squeeze-excitation may cost at most 3 % of a plain block's latency
SHOWN = 5  # rates of a shape in a file's comments


@dataclass(frozen=True)
class Wish:
    """What a space is for.

    Attributes:
        name: of the space.
        channels, side: of the images, in pixels a side.
        classes: how many there are.
        max_ms: the latency budget.
    """

    name: str
    channels: int
    side: int
    classes: int
    max_ms: float


@dataclass(frozen=True)
class Suggestion:
    """A space, and what it rests on.

    Attributes:
        space: what was composed.
        rates: for each stage, what was measured at its shape: the best of each kind first.
        fastest_ms, largest_ms: predicted latency of its fastest and of its largest network.
        text: the space as a YAML file, with the rates as comments.
    """

    space: SearchSpace
    rates: tuple[tuple[Rate, ...], ...]
    fastest_ms: float
    largest_ms: float
    simulated: bool
    text: str

    def to_json(self) -> dict[str, Any]:
        """What ``ofa-deploy space suggest --json`` prints."""
        return {
            "space": self.space.to_json(),
            "size": self.space.size,
            "fastest_ms": self.fastest_ms,
            "largest_ms": self.largest_ms,
            "simulated": self.simulated,
            "stages": [{"side": rows[0].choice.side, "rates": [_row(rate) for rate in rows]} for rows in self.rates],
        }


def suggest_space(fleet: Fleet, workspace: Workspace, target: TargetProfile, wish: Wish, tell: Tell) -> Suggestion:
    """Compose a space for a device and a budget.

    The budget is shared equally by the stages, and by stem and head together. At each stage's shape the best kind is
    the one whose best block that runs in its share has the most multiply-accumulates per millisecond. A stage may be as
    wide as one block in its share allows; narrower networks may be deeper.

    Raises:
        InfeasibleBudget: not even the fastest network of the space meets the budget.
        UsageError: the images are too small.
        DeviceUnavailable: the device does not answer.
    """
    limit = Constraints(max_ms=wish.max_ms, confidence=0.5)
    sides, strides, stem_stride = shapes(wish.side)
    bench = Bench(fleet, workspace, target, tell)
    rates, call_ms = measure_rates(bench, sides, wish.max_ms)
    share = max(wish.max_ms - call_ms, 0.0) / (len(sides) + 1)
    shown = tuple(tuple(best_of_kinds([rate for rate in rates if rate.choice.side == side], share)) for side in sides)
    chosen = [_stage([rate for rate in rates if rate.choice.side == side], share) for side in sides]
    extras = [_extras(bench, best, call_ms) for best, _ in chosen]
    stages = [
        {**fields, "stride": stride, **extra}
        for (_, fields), stride, extra in zip(chosen, strides, extras, strict=True)
    ]
    document = _document(wish, stages, stem_stride)
    space = load_space(document)
    codec = PopulationCodec(space)
    problem = Problem(codec, codec.macs, _latency(load_model(workspace, target, space), codec, call_ms), limit)
    quickest, most = fastest(problem)[1], float(problem.means(codec.encode([space.largest]))[0])
    if quickest > wish.max_ms:
        raise InfeasibleBudget(
            f"blocks of {target.name} are too slow for {wish.max_ms:g} ms: the fastest network of the space that was "
            f"composed needs {quickest:.3g} ms; ask for more, or for smaller images with --input"
        )
    simulated = load_table(workspace, target).simulated
    text = _text(document, shown, wish, target, simulated, (quickest, most))
    return Suggestion(space, shown, quickest, most, simulated, text)


def _latency(model: LatencyModel, codec: PopulationCodec, call_ms: float) -> Latency:
    """What networks take; where none was measured yet, the sum of their blocks, of whose calls one counts."""
    bound = model.bind(codec)
    if model.evidence:
        return bound.predict

    def predict(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean, std = bound.predict(population)
        blocks = (codec.op_ids(population) < len(codec.ops)).sum(axis=0)
        return np.maximum(mean - (blocks - 1) * call_ms, call_ms), std

    return predict


def shapes(side: int) -> tuple[list[int], list[int], int]:
    """The sides of the stages' outputs in pixels, the stages' strides, and the stem's.

    Raises:
        UsageError: the images are too small or too large.
    """
    if not 16 <= side <= 1024:
        raise UsageError(f"images of {side} pixels a side: a space has 16 to 1024")
    stem_stride = 2 if side > LARGE_SIDE else 1
    sides, strides = [(side - 1) // stem_stride + 1], [1]
    while sides[-1] > LAST_SIDE:
        sides.append((sides[-1] - 1) // 2 + 1)
        strides.append(2)
    return sides, strides, stem_stride


def _stage(rates: Sequence[Rate], share_ms: float) -> tuple[Rate, dict[str, Any]]:
    """The best block at a shape, and the fields of a stage there."""
    ranked = best_of_kinds(rates, share_ms)
    best = ranked[0]
    mixing = [rate for rate in ranked if rate.rate >= WITHIN * best.rate and _mixes(best.choice.kind, rate.choice.kind)]
    own = [rate for rate in rates if rate.choice.kind == best.choice.kind]
    most = within(rates, share_ms)
    fitting = [rate for rate in own if rate.ms <= most]
    cheapest = min(fitting, key=lambda rate: rate.ms).choice
    like = [rate for rate in own if (rate.choice.kernel, rate.choice.expand) == (cheapest.kernel, cheapest.expand)]
    widest = width_within(like, most)
    last = max(like, key=lambda rate: rate.choice.width)
    room = int(most / last.ms) if widest == last.choice.width else 0  # for more blocks of the widest that there are
    fields: dict[str, Any] = {
        "width": widest,
        "widths": thinned(widest),
        "block": best.choice.kind,
        "kinds": [rate.choice.kind for rate in mixing[:MOST_KINDS]],
        "depths": list(range(1, min(max(room, DEPTHS[0]), DEPTHS[1]) + 1)),
        "kernels": [list(k) if isinstance(k, tuple) else k for k in _near_best(fitting, "kernel")],
        "expands": _near_best(fitting, "expand"),
    }
    alone = [name for name in ("widths", "kinds") if len(fields[name]) == 1]
    return best, {name: value for name, value in fields.items() if name not in alone}


def best_of_kinds(rates: Sequence[Rate], share_ms: float) -> list[Rate]:
    """Each kind's block of the best rate among those that run in a share of the budget, the best kind first."""
    most, best = within(rates, share_ms), dict[str, Rate]()
    for rate in rates:
        kind = rate.choice.kind
        if rate.ms <= most and (kind not in best or rate.rate > best[kind].rate):
            best[kind] = rate
    return sorted(best.values(), key=lambda rate: -rate.rate)


def within(rates: Sequence[Rate], share_ms: float) -> float:
    """How long a block at a shape may take in ms: a share of the budget, or where hardly any block is as fast, half as
    long again as the fastest takes."""
    return max(share_ms, EASE * min(rate.ms for rate in rates))


def _mixes(best: str, other: str) -> bool:
    """Whether two kinds can be choices of one stage: their kernels and expand ratios mean the same."""
    one, two = stage_kind(best), stage_kind(other)
    outward = [kind.expanded(1, 2) == 2 for kind in (one, two) if kind.expands]
    return one.pairs == two.pairs and len(set(outward)) < 2 and (one.expands or best == other)


def _near_best(rates: Sequence[Rate], part: str) -> list[Any]:
    """The kernels or expand ratios whose best rate is not far from the best of all, and the best one's."""
    best: dict[Any, float] = {}
    for rate in rates:
        value = getattr(rate.choice, part)
        best[value] = max(best.get(value, 0.0), rate.rate)
    kept = [value for value, rate in best.items() if rate >= WITHIN * max(best.values())]
    if isinstance(kept[0], tuple) and tuple(map(max, zip(*kept, strict=True))) not in kept:
        return [max(kept, key=lambda value: best[value])]
    return sorted(kept)


def thinned(widest: int) -> list[int]:
    """Multiples of 8 from 8 to the widest, at most ``MOST_WIDTHS`` of them at about equal distances."""
    every = list(range(8, widest + 1, 8))
    step = max(1, -(-len(every) // MOST_WIDTHS))
    return sorted(every[len(every) - 1 :: -step])


def _extras(bench: Bench, best: Rate, call_ms: float) -> dict[str, Any]:
    """Squeeze-excitation and hard swish for a stage, where they hardly cost time on the device."""
    plain = best.choice
    richer = [replace(plain, act="hswish")]
    richer += [replace(plain, se=True)] if stage_kind(plain.kind).gated else []
    found = bench.rates([plain, *richer], call_ms, "measure activations")
    cheap = {rate.choice for rate in found[1:] if rate.ms <= CHEAP * found[0].ms}
    act = {"act": "hswish"} if richer[0] in cheap else {"act": "relu"}
    return act | ({"se": True} if any(choice.se for choice in cheap) else {})


def _document(wish: Wish, stages: Sequence[dict[str, Any]], stem_stride: int) -> dict[str, Any]:
    stages = [
        {
            name: value
            for name, value in stage.items()
            if name != "se" or all(map(_gated, stage.get("kinds", [stage["block"]])))
        }
        for stage in stages
    ]
    first, last = stages[0]["width"], stages[-1]["width"]
    return {
        "name": wish.name,
        "in_channels": wish.channels,
        "num_classes": wish.classes,
        "resolutions": [wish.side],
        "stem_width": max(8, min(16, first)),
        "stem_stride": stem_stride,
        "stem_act": "relu",
        "first_block": False,
        "stages": stages,
        "head_width": min(256, 2 * last),
        "feature_width": 0,
        "head_act": "relu",
    }


def _gated(kind: str) -> bool:
    return stage_kind(kind).gated


def _text(
    document: dict[str, Any],
    shown: Sequence[Sequence[Rate]],
    wish: Wish,
    target: TargetProfile,
    simulated: bool,
    predicted: tuple[float, float],
) -> str:
    """The document as YAML, with what was measured as comments."""
    lines = [
        f"# {'SIMULATED: ' if simulated else ''}composed for {target.name} ({target.runtime}, {target.precision}) and "
        f"{wish.max_ms:g} ms.",
        f"# Predicted: {predicted[0]:.3g} ms for its fastest network, {predicted[1]:.3g} ms for its largest.",
        "# Above each stage: how fast blocks of its shape ran alone, in million multiply-accumulates per ms;",
        "# of each kind the best one that runs in the stage's share of the budget.",
    ]
    for key, value in document.items():
        if key != "stages":
            lines.append(f"{key}: {json.dumps(value)}")
            continue
        lines.append("stages:")
        for stage, rows in zip(value, shown, strict=True):
            lines += [f"  # {rows[0].choice.side} pixels a side:", *(f"  #   {_said(rate)}" for rate in rows[:SHOWN])]
            flow = yaml.safe_dump(stage, default_flow_style=True, sort_keys=False, width=10_000).strip()
            lines.append(f"  - {flow}")
    return "\n".join(lines) + "\n"


def _said(rate: Rate) -> str:
    """A measured block in words."""
    one = rate.choice
    kernel = "×".join(map(str, one.kernel)) if isinstance(one.kernel, tuple) else str(one.kernel)
    return (
        f"{one.kind} {rate.rate:.3g} ({one.width} channels, kernel {kernel}, expand {one.expand:g}: {rate.ms:.3g} ms)"
    )


def _row(rate: Rate) -> dict[str, Any]:
    one = rate.choice
    kernel = list(one.kernel) if isinstance(one.kernel, tuple) else one.kernel
    sizes = {"width": one.width, "kernel": kernel, "expand": one.expand}
    return {"block": one.kind, **sizes, "ms": rate.ms, "macs_per_ms": 1e6 * rate.rate}
