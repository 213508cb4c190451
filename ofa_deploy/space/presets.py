"""The spaces that ship, and reading one from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_deploy.blocks.kinds import Kernel
from ofa_deploy.config import SpaceDocument, line_of, read_document
from ofa_deploy.errors import UsageError
from ofa_deploy.space.elastic import make_elastic
from ofa_deploy.space.scaling import rescale
from ofa_deploy.space.search_space import SearchSpace
from ofa_deploy.space.stage_spec import StageSpec

_OFA_RESOLUTIONS = (128, 144, 160, 176, 192, 208, 224)


def _ofa_mbv3(name: str, widths: tuple[int, ...], stem: int, head: int, feature: int) -> SearchSpace:
    """Once-for-all's MobileNetV3 space: 5 stages of up to 4 blocks, over 10^19 subnets a resolution."""
    strides, acts = (2, 2, 2, 1, 2), ("relu", "relu", "hswish", "hswish", "hswish")
    ses = (False, True, False, True, True)
    return SearchSpace(
        name=name,
        stages=tuple(StageSpec(*spec) for spec in zip(widths, strides, acts, ses, strict=True)),
        resolutions=_OFA_RESOLUTIONS,
        stem_width=stem,
        head_width=head,
        feature_width=feature,
    )


_SMALL_28 = SearchSpace(
    # For 28-pixel grey images on a CPU: one cheap block at 14 pixels, the rest at 7 and 4. A 5×5 depthwise layer at 14
    # pixels would cost more to train than the whole last stage.
    name="small_28",
    stages=(
        StageSpec(24, 1, "relu", False, (1,), (3,), (2, 3)),
        StageSpec(48, 2, "relu", False, (1, 2, 3), (3, 5), (2, 3)),
        StageSpec(96, 2, "hswish", True, (1, 2, 3), (3, 5), (2, 3, 4)),
    ),
    resolutions=(20, 24, 28),
    widths=(0.75, 1.0),
    in_channels=1,
    num_classes=10,
    first_block=False,
    head_width=160,
    feature_width=0,
)
_FASHION_28 = replace(
    # For the same images where accuracy counts more than training time: the stem keeps all 28 pixels, and both stages
    # are wider, at 14 and at 7 pixels.
    _SMALL_28,
    name="fashion_28",
    stages=(
        StageSpec(32, 2, "relu", False, (1, 2, 3), (3, 5), (2, 3, 4)),
        StageSpec(96, 2, "hswish", True, (2, 3, 4), (3, 5), (2, 3, 4)),
    ),
    resolutions=(24, 28),
    widths=(1.0,),
    stem_stride=1,
    head_width=320,
)
_SMALL_32 = replace(_SMALL_28, name="small_32", in_channels=3, resolutions=(24, 28, 32))
_UIB: tuple[Kernel, ...] = ((0, 0), (3, 0), (0, 3), (3, 3), (0, 5), (3, 5))  # all four cases of the block
_UIB_28 = replace(
    # The same of universal inverted bottlenecks. As in MobileNetV4's convolutional models, there is no activation but
    # ReLU, and no squeeze-excitation.
    _SMALL_28,
    name="uib_28",
    stages=(
        StageSpec(24, 1, depths=(1,), kernels=((0, 3), (3, 3)), expands=(2, 3), block="uib"),
        StageSpec(48, 2, depths=(1, 2, 3), kernels=_UIB, expands=(2, 3), block="uib"),
        StageSpec(96, 2, depths=(1, 2, 3), kernels=_UIB, expands=(2, 3, 4), block="uib"),
    ),
    stem_act="relu",
    head_act="relu",
)
_RESNET_28 = replace(
    # The same of ResNet's basic blocks, whose widths are choices: dense convolutions are the better use of a CPU's time
    # where images are small.
    _SMALL_28,
    name="resnet_28",
    stages=(
        StageSpec(16, 1, depths=(1, 2), kernels=(3,), expands=(0.5, 1), block="basic", widths=(8, 16)),
        StageSpec(32, 2, depths=(1, 2), kernels=(3,), expands=(0.5, 1), block="basic", widths=(16, 24, 32)),
        StageSpec(64, 2, depths=(1, 2), kernels=(3,), expands=(0.5, 1), block="basic", widths=(32, 48, 64)),
    ),
    widths=(1.0,),
    stem_act="relu",
    head_width=128,
    head_act="relu",
)
_HYBRID_28 = replace(
    # As in MobileNetV4's hybrid models, attention follows the inverted bottlenecks of a width. It begins at 7 pixels:
    # the 49 places there cost little.
    _UIB_28,
    name="mnv4_hybrid_28",
    stages=(
        *_UIB_28.stages[:2],
        StageSpec(48, 1, depths=(1,), kernels=(3,), expands=(1, 2), block="mqa"),
        _UIB_28.stages[2],
        StageSpec(96, 1, depths=(1, 2), kernels=(3,), expands=(0.5, 1), block="mqa"),
    ),
)
_NETWORK_LEVEL_28 = replace(
    # The same images, and for every stage a choice of its layer type, whatever the others are: convolutions, residual
    # blocks or attention; then of its depth and width, and of each block's kernel and expansion. Each type has weights
    # of its own.
    _SMALL_28,
    name="network_level_28",
    stages=tuple(
        StageSpec(
            width,
            stride,
            depths=(1, 2, 3),
            kernels=(3, 5),
            expands=(1, 2, 4),
            widths=(width // 2, width),
            block="mbconv",
            kinds=("conv", "bottleneck", "mbconv", "transformer"),
        )
        for width, stride in ((32, 1), (64, 2), (128, 2))
    ),
    widths=(1.0,),
    stem_act="relu",
    head_act="relu",
)
_TINY_16 = SearchSpace(
    # For the 8-pixel digits, enlarged: trains in a minute on two cores.
    name="tiny_16",
    stages=(
        StageSpec(16, 1, "relu", False, (1, 2), (3, 5), (2, 3, 4)),
        StageSpec(32, 2, "hswish", True, (1, 2, 3), (3, 5), (2, 3, 4)),
    ),
    resolutions=(16, 20, 24),
    widths=(0.5, 1.0),
    in_channels=1,
    num_classes=10,
    first_block=False,
    head_width=96,
    feature_width=0,
)
_UIB_16 = replace(
    _TINY_16,
    name="uib_16",
    stages=(
        StageSpec(16, 1, depths=(1, 2), kernels=((0, 0), (0, 3), (3, 3)), expands=(2, 3, 4), block="uib"),
        StageSpec(32, 2, depths=(1, 2, 3), kernels=_UIB, expands=(2, 3, 4), block="uib"),
    ),
    stem_act="relu",
    head_act="relu",
)

_EFFICIENTNET_B0 = SearchSpace(
    # One network, whose widths, depths and resolution are scaled (Tan & Le, ICML 2019, table 1).
    name="efficientnet_b0",
    stages=tuple(
        StageSpec(width, stride, "silu", True, (depth,), (kernel,), (expand,), squeeze="input")
        for expand, width, depth, kernel, stride in (
            (1, 16, 1, 3, 1),
            (6, 24, 2, 3, 2),
            (6, 40, 2, 5, 2),
            (6, 80, 3, 3, 2),
            (6, 112, 3, 5, 1),
            (6, 192, 4, 5, 2),
            (6, 320, 1, 3, 1),
        )
    ),
    resolutions=(224,),
    stem_width=32,
    stem_act="silu",
    first_block=False,
    head_width=1280,
    feature_width=0,
    head_act="silu",
)
_EFFICIENTNETS = (  # the authors' own factors of width and depth, and resolutions, which are not the rule's
    (1.0, 1.0, 224, 1e-5),
    (1.0, 1.1, 240, 1e-5),
    (1.1, 1.2, 260, 1e-5),
    (1.2, 1.4, 300, 1e-5),
    (1.4, 1.8, 380, 1e-5),
    (1.6, 2.2, 456, 1e-3),
    (1.8, 2.6, 528, 1e-3),
    (2.0, 3.1, 600, 1e-3),
)


def _efficientnet(phi: int) -> SearchSpace:
    width, depth, resolution, bn_eps = _EFFICIENTNETS[phi]
    scaled = rescale(_EFFICIENTNET_B0, f"efficientnet_b{phi}", width, depth, resolution / 224)
    return replace(scaled, bn_eps=bn_eps)


_EFFICIENTNET_LITE0 = replace(
    # Without what accelerators and 8-bit arithmetic do badly: squeeze-excitation and SiLU (the authors' repository
    # tensorflow/tpu, efficientnet/lite). Its weights come from TensorFlow, hence the padding.
    _EFFICIENTNET_B0,
    name="efficientnet_lite0",
    stages=tuple(replace(stage, act="relu6", se=False, squeeze="expanded") for stage in _EFFICIENTNET_B0.stages),
    stem_act="relu6",
    head_act="relu6",
    bn_eps=1e-3,
    same_padding=True,
)
_EFFICIENTNET_LITES = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))


def _efficientnet_lite(number: int) -> SearchSpace:
    """Stem and head keep their widths, the first and the last stage their depths."""
    width, depth, resolution = _EFFICIENTNET_LITES[number]
    base = _EFFICIENTNET_LITE0
    scaled = rescale(base, f"efficientnet_lite{number}", width, depth, resolution / 224)
    first, *inner, last = scaled.stages
    first, last = (replace(s, depths=b.depths) for s, b in ((first, base.stages[0]), (last, base.stages[-1])))
    return replace(scaled, stages=(first, *inner, last), stem_width=base.stem_width, head_width=base.head_width)


_MOBILENET_V2 = SearchSpace(
    # Sandler et al., CVPR 2018, table 2.
    name="mobilenet_v2",
    stages=tuple(
        StageSpec(width, stride, "relu6", False, (depth,), (3,), (expand,))
        for expand, width, depth, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
    ),
    resolutions=(224,),
    stem_width=32,
    stem_act="relu6",
    first_block=False,
    head_width=1280,
    feature_width=0,
    head_act="relu6",
)
_OFA_RESNET50 = SearchSpace(
    # Once-for-all's ResNet-50D space: widths of 0.65, 0.8 and 1 times those of ResNet-50, stage by stage, and two fewer
    # blocks to one more than it has.
    name="ofa_resnet50",
    stages=(
        StageSpec(64, 4, depths=(1,), kernels=(0, 3), expands=(8, 32 / 3), block="deep_stem", widths=(40, 48, 64)),
        *(
            StageSpec(
                widths[-1],
                stride,
                depths=tuple(range(fewest, fewest + 3)),
                kernels=(3,),
                expands=(0.2, 0.25, 0.35),
                block="bottleneck",
                widths=widths,
            )
            for widths, stride, fewest in (
                ((168, 208, 256), 1, 2),
                ((336, 408, 512), 2, 2),
                ((664, 816, 1024), 2, 4),
                ((1328, 1640, 2048), 2, 2),
            )
        ),
    ),
    resolutions=_OFA_RESOLUTIONS,
    stem_width=0,
    first_block=False,
    head_width=0,
    feature_width=0,
)
_OFA_PROXYLESS = SearchSpace(
    # Once-for-all's ProxylessNAS space at width 1.3. Its first block, which has no choices, is a stage here.
    name="ofa_proxyless_w1.3",
    stages=(
        StageSpec(24, 1, "relu6", False, (1,), (3,), (1,)),
        *(StageSpec(width, stride, "relu6") for width, stride in ((32, 2), (56, 2), (104, 2), (128, 1), (248, 2))),
        StageSpec(416, 1, "relu6", depths=(1,)),
    ),
    resolutions=_OFA_RESOLUTIONS,
    stem_width=40,
    stem_act="relu6",
    first_block=False,
    head_width=1664,
    feature_width=0,
    head_act="relu6",
    bn_eps=1e-3,
)


PRESETS: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        _ofa_mbv3("ofa_mbv3_w1.0", (24, 40, 80, 112, 160), 16, 960, 1280),
        _ofa_mbv3("ofa_mbv3_w1.2", (32, 48, 96, 136, 192), 24, 1152, 1536),
        _OFA_PROXYLESS,
        _OFA_RESNET50,
        *map(_efficientnet, range(len(_EFFICIENTNETS))),
        *map(_efficientnet_lite, range(len(_EFFICIENTNET_LITES))),
        _MOBILENET_V2,
        _SMALL_28,
        _FASHION_28,
        _SMALL_32,
        _NETWORK_LEVEL_28,
        _TINY_16,
        _UIB_28,
        _RESNET_28,
        _HYBRID_28,
        _UIB_16,
    )
}


def load_space(source: str | Path | Mapping[str, Any]) -> SearchSpace:
    """A space from a preset's name, a YAML file, or an already parsed mapping.

    A mapping may start from a preset or another file with ``base:`` and change any field, or make its largest subnet
    ``elastic:``; it then needs a ``name`` of its own. The base of a file lies beside it, or where you stand.

    Raises:
        UsageError: an unknown preset, or a document with an unknown or wrong key.
    """
    return _load(source, ())


def _load(source: str | Path | Mapping[str, Any], above: tuple[Path, ...]) -> SearchSpace:
    """``above``: the files whose bases lead here."""
    if isinstance(source, (str, Path)) and str(source) in PRESETS:
        return PRESETS[str(source)]
    if isinstance(source, (str, Path)) and not str(source).endswith((".yaml", ".yml")):
        raise UsageError(f"unknown space {str(source)!r}; presets: {', '.join(PRESETS)}, or a path that ends in .yaml")
    place = () if isinstance(source, Mapping) else (Path(source).resolve(),)
    if set(place) & set(above):
        raise UsageError(f"space {source}: its base is, by way of others, itself")
    document = read_document(SpaceDocument, source)
    fields = {k: v for k, v in document.model_dump(exclude_none=True).items() if k not in ("base", "elastic")}
    if "stages" in fields:
        fields["stages"] = tuple(_stage(document.name, i, stage) for i, stage in enumerate(fields["stages"]))
    if document.base is None:
        if missing := [name for name in ("stages", "resolutions") if name not in fields]:
            raise UsageError(
                f"space {document.name} has no {' and no '.join(missing)}; give them, or a base to start from"
            )
        found = SearchSpace(**fields)
    else:
        beside = [path.parent / document.base for path in place]
        base = next((path for path in beside if path.is_file()), document.base)
        found = replace(_load(base, (*above, *place)), **fields)
    if document.elastic is None:
        return found
    return make_elastic(found, document.elastic, lambda choice: line_of(source, "elastic", choice))


def _stage(space: str, position: int, fields: Mapping[str, Any]) -> StageSpec:
    try:
        return StageSpec(**fields)
    except UsageError as error:
        raise UsageError(f"space {space}: stages.{position}: {error}") from error
