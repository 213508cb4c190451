"""Random checkpoints of once-for-all's supernets in all their spellings, written from what is published of them,
without any of our names: weights, batch statistics and kernel transforms are random.

Those of width 1.0 and 1.2 are MobileNetV3's, that of 1.3 is ProxylessNAS's, and 50 stands for ResNet-50's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.training.torchvision_shim import torchvision_module

WIDTHS = {  # stem, first block, stages, last convolution, feature
    1.0: (16, 16, (24, 40, 80, 112, 160), 960, 1280),
    1.2: (24, 24, (32, 48, 96, 136, 192), 1152, 1536),
    1.3: (40, 24, (32, 56, 104, 128, 248), 1664, 0),
}
RESNET = 50
NAMES = {1.0: "ofa_mbv3_w1.0", 1.2: "ofa_mbv3_w1.2", 1.3: "ofa_proxyless_w1.3", RESNET: "ofa_resnet50"}
MULTIPLIERS, RATIOS = (0.65, 0.8, 1.0), (0.2, 0.25, 0.35)  # of ResNet-50's widths and expansions
LAST = 416  # of ProxylessNAS's last block, which is a stage alone
SE = (False, True, False, True, True)
Shape = tuple[int, ...]


def layers(width: float, classes: int) -> Iterator[tuple[str, Shape]]:
    """Every weight's name, each part said once, and its shape; batch norms end in ``bn``."""
    if width == RESNET:
        yield from resnet_layers(classes)
        return
    stem, first, stages, head, feature = WIDTHS[width]
    yield from conv_bn("first_conv", (stem, 3, 3, 3))
    yield from conv_bn("blocks.0.conv.depth_conv", (stem, 1, 3, 3))
    yield from conv_bn("blocks.0.conv.point_linear", (first, stem, 1, 1))
    blocks = [(channels, se and feature > 0) for channels, se in zip(stages, SE, strict=True) for _ in range(4)]
    before = first
    for number, (channels, se) in enumerate(blocks if feature else [*blocks, (LAST, False)], 1):
        yield from block(f"blocks.{number}.conv", before, channels, se)
        before = channels
    if feature:
        yield from conv_bn("final_expand_layer", (head, before, 1, 1))
        yield "feature_mix_layer.conv.weight", (feature, head, 1, 1)
    else:
        yield from conv_bn("feature_mix_layer", (head, before, 1, 1))
    yield "classifier.linear.weight", (classes, feature or head)
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


def resnet_layers(classes: int) -> Iterator[tuple[str, Shape]]:
    """Those of ResNet-50D with the most blocks and channels."""
    for place, shape in (("0", (32, 3, 3, 3)), ("1.conv", (32, 32, 3, 3)), ("2", (64, 32, 3, 3))):
        yield from conv_bn(f"input_stem.{place}", shape)
    before, number = 64, 0
    for channels, middle, depth in ((256, 88, 4), (512, 176, 4), (1024, 360, 6), (2048, 720, 4)):
        for position in range(depth):
            name = f"blocks.{number}"
            yield from conv_bn(f"{name}.conv1", (middle, before, 1, 1))
            yield from conv_bn(f"{name}.conv2", (middle, middle, 3, 3))
            yield from conv_bn(f"{name}.conv3", (channels, middle, 1, 1))
            if position == 0:
                yield from conv_bn(f"{name}.downsample", (channels, before, 1, 1))
            before, number = channels, number + 1
    yield "classifier.linear.weight", (classes, before)
    yield "classifier.linear.bias", (classes,)


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
        scale = 0.42 if "point_linear" in name or "conv3" in name else 1.0
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


def written_by_package(width: float) -> Callable[[str], str]:
    """How the package spells a supernet: all layers of ResNet-50's are elastic."""
    return doubled if width == RESNET else current


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


def their_supernet(width: float, weights: dict[str, Tensor]) -> nn.Module:
    """The package's own supernet, in evaluation mode."""
    torchvision_module("transforms")  # which the package imports
    from ofa.imagenet_classification.elastic_nn import networks

    if width == RESNET:
        choices = {"expand_ratio_list": [*RATIOS], "width_mult_list": [*MULTIPLIERS]}
        resnet = networks.OFAResNets(depth_list=[0, 1, 2], **choices).eval()
        resnet.load_state_dict(weights)
        return resnet
    kind = networks.OFAProxylessNASNets if NAMES[width].startswith("ofa_proxyless") else networks.OFAMobileNetV3
    theirs = kind(ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4], width_mult=width).eval()
    theirs.load_state_dict(weights)
    return theirs


def their_choices(arch: Arch, space: SearchSpace) -> dict[str, list[int]]:
    """A subnet as the package is told of it, which does not count the first block among those that have choices."""
    if space.name == NAMES[RESNET]:
        widths = [stage.widths.index(channels) for stage, channels in zip(space.stages, arch.channels, strict=True)]
        depths = [stage.depths.index(depth) for stage, depth in zip(space.stages, arch.depths, strict=True)]
        stem = {8: 0, 32 / 3: 2}[arch.expands[0]]  # the package has 24 channels twice
        return {"d": [2 if arch.kernels[0] else 0, *depths[1:]], "e": list(arch.expands[1:]), "w": [stem, *widths]}
    stages = 0 if space.first_block else 1
    slots = sum(max(stage.depths) for stage in space.stages[:stages])
    return {"ks": list(arch.kernels[slots:]), "e": list(arch.expands[slots:]), "d": list(arch.depths[stages:])}
