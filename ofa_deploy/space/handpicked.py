"""Networks that a person picks by hand: what a searched network is compared with.

Each is a space of one subnet, so everything that trains, measures and exports subnets does so with them. For images of
up to 64 pixels the first convolution does not stride, as is usual there; for larger ones all strides are as published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_deploy.blocks.kinds import make_divisible
from ofa_deploy.errors import UsageError
from ofa_deploy.space.elastic import frozen, largest_alone
from ofa_deploy.space.presets import PRESETS, load_space
from ofa_deploy.space.scaling import rescale
from ofa_deploy.space.search_space import SearchSpace
from ofa_deploy.space.stage_spec import StageSpec

SMALL = 64  # pixels: the largest images in which the first convolution does not stride
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35, 0.25, 0.1)  # of the width; which of them fits, a measurement tells
WIDTHS = re.compile(r"(resnet|plain)((?:-[1-9][0-9]{0,3}){2,6})")
MULTIPLIED = re.compile(r"(?P<base>.+?)(?:@(?P<width>[0-9]*\.?[0-9]+))?")


def handpicked(name: str, resolution: int, in_channels: int, num_classes: int) -> SearchSpace:
    """A hand-picked network as a space of one subnet.

    Args:
        name: one of ``families``, ``resnet-A-B-C`` or ``plain-A-B-C`` with any widths, a preset, or a space's YAML file
            (of both the largest subnet); behind each ``@`` and a width multiplier. Its name is the space's, with the
            images' channels and the number of classes: they are part of what the network is.
        resolution: height and width of the images in pixels.

    Raises:
        UsageError: there is no such network.
    """
    found = MULTIPLIED.fullmatch(name)
    base, width = (found["base"], float(found["width"] or 1)) if found else (name, 1.0)
    if not 0 < width <= 4:
        raise UsageError(f"{name}: the width multiplier must be above 0 and at most 4")
    space = _made(base, width, resolution <= SMALL)
    called = f"{Path(base).stem if base.endswith(('.yaml', '.yml')) else base}{f'@{width:g}' if width != 1 else ''}"
    return _for_images(replace(space, resolutions=(resolution,)), called, in_channels, num_classes)


def handpicked_subnet(space: SearchSpace, arch: Mapping[str, Any], in_channels: int, num_classes: int) -> SearchSpace:
    """A subnet that was picked by hand from a space, as a space of one subnet; its resolution stays.

    Raises:
        UsageError: it is no subnet of the space.
    """
    alone = frozen(space, space.canonical(arch))
    return _for_images(alone, alone.name, in_channels, num_classes)


def _for_images(space: SearchSpace, called: str, in_channels: int, num_classes: int) -> SearchSpace:
    name = f"{called}-c{in_channels}-n{num_classes}"
    return replace(space, name=name, in_channels=in_channels, num_classes=num_classes)


def picked_name(space: SearchSpace) -> str:
    """What a person calls a hand-picked network: its space's name without the images."""
    return space.name.removesuffix(f"-c{space.in_channels}-n{space.num_classes}")


def _made(base: str, width: float, small: bool) -> SearchSpace:
    if found := WIDTHS.fullmatch(base):
        widths = [make_divisible(int(part) * width) for part in found[2].split("-")[1:]]
        return _MADE_OF[found[1]](widths, small)
    if base in _FAMILIES:
        return _FAMILIES[base](width, small)
    if base in PRESETS or base.endswith((".yaml", ".yml")):
        return rescale(largest_alone(load_space(base), base), base, width, 1.0, 1.0)
    known = ", ".join(_FAMILIES)
    raise UsageError(
        f"unknown network {base!r}; known: resnet-8-16-32 and plain-8-16-32 with any widths, {known}, a preset, or a "
        "space's YAML file; each may have a width multiplier, as in mobilenet_v2@0.25"
    )


def families() -> tuple[str, ...]:
    """The published networks that have a width multiplier."""
    return tuple(_FAMILIES)


def _alone(name: str, stages: Sequence[StageSpec], stem_width: int, small: bool, act: str) -> SearchSpace:
    """Stages between a first convolution and a classifier behind the mean of every channel."""
    return SearchSpace(
        name,
        tuple(stages),
        resolutions=(224,),
        stem_width=stem_width,
        stem_stride=1 if small else 2,
        stem_act=act,
        first_block=False,
        head_width=0,
        feature_width=0,
    )


def _stage(block: str, width: int, stride: int, depth: int = 1) -> StageSpec:
    return StageSpec(width, stride, depths=(depth,), kernels=(3,), expands=(1,), block=block)


def _resnet(widths: Sequence[int], small: bool) -> SearchSpace:
    """A basic block of each width; each but the first one strides (He et al., CVPR 2016, §4.2)."""
    stages = [_stage("basic", width, 1 if i == 0 else 2) for i, width in enumerate(widths)]
    return _alone("resnet", stages, widths[0], small, "relu")


def _plain(widths: Sequence[int], small: bool) -> SearchSpace:
    """Two 3×3 convolutions of each width, with batch norm and ReLU; the first of each width but the first strides."""
    stages = [_stage("conv", width, 1 if i == 0 else 2, 1 if i == 0 else 2) for i, width in enumerate(widths)]
    return _alone("plain", stages, widths[0], small, "relu")


_MADE_OF = {"resnet": _resnet, "plain": _plain}


def _mobilenet_v2(width: float, small: bool) -> SearchSpace:
    scaled = rescale(PRESETS["mobilenet_v2"], "mobilenet_v2", width, 1.0, 1.0)
    head = make_divisible(PRESETS["mobilenet_v2"].head_width * max(1.0, width))  # it never narrows, as published
    return _strided(replace(scaled, head_width=head), small)


def _efficientnet(preset: str) -> Callable[[float, bool], SearchSpace]:
    return lambda width, small: _strided(rescale(PRESETS[preset], preset, width, 1.0, 1.0), small)


def _strided(space: SearchSpace, small: bool) -> SearchSpace:
    return replace(space, stem_stride=1) if small else space


_V3_SMALL = (  # Howard et al., ICCV 2019, table 2: kernel, channels inside and out, gate, activation, stride
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)


def _mobilenet_v3_small(width: float, small: bool) -> SearchSpace:
    stem = cin = make_divisible(16 * width)
    stages = []
    for kernel, inside, out, gated, act, stride in _V3_SMALL:
        mid, cout = make_divisible(inside * width), make_divisible(out * width)
        stages.append(StageSpec(cout, stride, act, gated, (1,), (kernel,), (mid / cin,)))
        cin = cout
    space = _alone("mobilenet_v3_small", stages, stem, small, "hswish")
    return replace(space, head_width=6 * cin, feature_width=make_divisible(1024 * width), bn_eps=1e-3)


# Ma et al., ECCV 2018, table 5. Between and below the published multipliers, widths are in proportion to those of 0.5;
# where a published width is no multiple of 8, it becomes the nearest.
_SHUFFLENETS = {1.0: (116, 232, 464), 1.5: (176, 352, 704), 2.0: (244, 488, 976)}


def _shufflenet_v2(width: float, small: bool) -> SearchSpace:
    widths = [make_divisible(w) for w in _SHUFFLENETS.get(width, (96 * width, 192 * width, 384 * width))]
    stages = [_stage("shuffle", w, 2, depth) for w, depth in zip(widths, (4, 8, 4), strict=True)]
    head = 2048 if width >= 2 else make_divisible(1024 * min(1.0, 2 * width))
    stem = make_divisible(24 * min(1.0, 2 * width))
    if small:
        return replace(_alone("shufflenet_v2", stages, stem, small, "relu"), head_width=head, head_act="relu")
    stages.insert(0, _stage("pooled_stem", stem, 4))
    return replace(_alone("shufflenet_v2", stages, 0, small, "relu"), head_width=head, head_act="relu")


_FAMILIES: dict[str, Callable[[float, bool], SearchSpace]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3_small": _mobilenet_v3_small,
    "shufflenet_v2": _shufflenet_v2,
    "efficientnet_b0": _efficientnet("efficientnet_b0"),
    "efficientnet_lite0": _efficientnet("efficientnet_lite0"),
}
