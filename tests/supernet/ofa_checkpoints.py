"""Random checkpoints of once-for-all's MobileNetV3 supernets in all their spellings, written from what is published of
them, without any of our names: weights, batch statistics and kernel transforms are random."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor

WIDTHS = {  # stem, stages, last convolution, feature
    1.0: (16, (24, 40, 80, 112, 160), 960, 1280),
    1.2: (24, (32, 48, 96, 136, 192), 1152, 1536),
}
SE = (False, True, False, True, True)
Shape = tuple[int, ...]


def layers(width: float, classes: int) -> Iterator[tuple[str, Shape]]:
    """Every weight's name, each part said once, and its shape; batch norms end in ``bn``."""
    stem, stages, head, feature = WIDTHS[width]
    yield from conv_bn("first_conv", (stem, 3, 3, 3))
    yield from conv_bn("blocks.0.conv.depth_conv", (stem, 1, 3, 3))
    yield from conv_bn("blocks.0.conv.point_linear", (stem, stem, 1, 1))
    before, number = stem, 1
    for channels, se in zip(stages, SE, strict=True):
        for _ in range(4):
            yield from block(f"blocks.{number}.conv", before, channels, se)
            before, number = channels, number + 1
    yield from conv_bn("final_expand_layer", (head, before, 1, 1))
    yield "feature_mix_layer.conv.weight", (feature, head, 1, 1)
    yield "classifier.linear.weight", (classes, feature)
    yield "classifier.linear.bias", (classes,)


def block(name: str, before: int, channels: int, se: bool) -> Iterator[tuple[str, Shape]]:
    """A block of the largest subnet: kernel 7, expand ratio 6."""
    middle = 6 * before
    yield from conv_bn(f"{name}.inverted_bottleneck", (middle, before, 1, 1))
    yield from conv_bn(f"{name}.depth_conv", (middle, 1, 7, 7))
    yield f"{name}.depth_conv.conv.7to5_matrix", (25, 25)
    yield f"{name}.depth_conv.conv.5to3_matrix", (9, 9)
    if se:
        squeezed = (middle // 4 + 4) // 8 * 8
        yield f"{name}.depth_conv.se.fc.reduce.weight", (squeezed, middle, 1, 1)
        yield f"{name}.depth_conv.se.fc.reduce.bias", (squeezed,)
        yield f"{name}.depth_conv.se.fc.expand.weight", (middle, squeezed, 1, 1)
        yield f"{name}.depth_conv.se.fc.expand.bias", (middle,)
    yield from conv_bn(f"{name}.point_linear", (channels, middle, 1, 1))


def conv_bn(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (shape[0],)
    yield f"{name}.bn.num_batches_tracked", ()


def values(name: str, shape: Shape, generator: torch.Generator) -> Tensor:
    """Random weights. Activations stay in range through twenty blocks, or torch itself would be 1e-4 off in fp32."""

    def normal(scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("_matrix"):
        return torch.eye(shape[0]) + normal(0.1)
    if name.endswith(("running_var", "bn.weight")):
        scale = 0.42 if "point_linear" in name else 1.0
        return scale * (0.5 + torch.rand(shape, generator=generator))
    return normal(0.05 if len(shape) == 1 else (2 / torch.tensor(shape[1:]).prod().item()) ** 0.5)


def single(name: str) -> str:
    """The block's layer as it is called now, and every part said once."""
    return name


def doubled(name: str) -> str:
    """Every part that holds the plain layer is said twice."""
    name = re.sub(r"\.conv\.weight$", ".conv.conv.weight", name)
    return name.replace(".bn.", ".bn.bn.").replace(".linear.", ".linear.linear.")


def current(name: str) -> str:
    """As the package writes it: twice in elastic layers, once in the others."""
    return doubled(name) if re.match(r"blocks\.[1-9]", name) else name


def legacy(name: str) -> str:
    """As the published files have it."""
    return re.sub(r"^(blocks\.\d+)\.conv\.", r"\1.mobile_inverted_conv.", current(name))


def mixed(name: str) -> str:
    """A spelling that depends on the name."""
    return (single, doubled, current, legacy)[sum(map(ord, name)) % 4](name)


SPELLINGS: tuple[Callable[[str], str], ...] = (single, doubled, current, legacy, mixed)


@lru_cache(maxsize=2)
def weights(width: float, seed: int, classes: int) -> dict[str, Tensor]:
    """A supernet's state with every part of a name said once."""
    generator = torch.Generator().manual_seed(seed)
    return {name: values(name, shape, generator) for name, shape in layers(width, classes)}


def state(
    width: float, spelling: Callable[[str], str] = legacy, seed: int = 0, classes: int = 1000
) -> dict[str, Tensor]:
    """A supernet's state; the same seed has the same weights in every spelling."""
    return {spelling(name): value for name, value in weights(width, seed, classes).items()}
