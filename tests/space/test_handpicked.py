"""Hand-picked networks are the published ones: as many weights and multiply-accumulates as torchvision's."""

import pytest
import torch
from torch import nn

from ofa_deploy.errors import UsageError
from ofa_deploy.space import handpicked, handpicked_subnet, load_space, network_macs, network_params, picked_name
from ofa_deploy.supernet import Subnet
from ofa_deploy.training.torchvision_shim import torchvision_module


def counts(model: nn.Module, channels: int, side: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a module, from what its layers really read and write."""
    total = 0

    def count(layer, read, written):
        nonlocal total
        each = layer.weight[0].numel()  # products for one written value
        total += written.numel() * each

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, side, side))
    return sum(parameter.numel() for parameter in model.parameters()), total


def v3_small(models, width):
    configuration, last = models.mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=width)
    return models.MobileNetV3(configuration, last)


def b0(models, width):
    part = models.efficientnet.MBConvConfig
    rows = ((1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3))
    rows += ((6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1))
    return models.EfficientNet([part(*row, width_mult=width) for row in rows], 0.2)


SHUFFLED = {0.5: [24, 48, 96, 192, 1024], 1.5: [24, 176, 352, 704, 1024]}
PUBLISHED = {
    "mobilenet_v2": lambda models, width: models.MobileNetV2(width_mult=width),
    "mobilenet_v3_small": v3_small,
    "shufflenet_v2": lambda models, width: models.ShuffleNetV2([4, 8, 4], SHUFFLED[width]),
    "efficientnet_b0": b0,
}
UNBIASED = {"mobilenet_v3_small": 1024}  # as once-for-all has it, the layer before the classifier has no bias here


@pytest.mark.parametrize(
    ("name", "width"),
    [(name, width) for name in PUBLISHED for width in (SHUFFLED if name == "shufflenet_v2" else (0.25, 0.5, 1.0))],
)
def test_published_networks_are_torchvisions(name, width):
    space = handpicked(f"{name}@{width}", 224, 3, 1000)
    network = space.network(space.largest)
    params, macs = counts(PUBLISHED[name](torchvision_module("models"), width), 3, 224)
    biases = int(UNBIASED.get(name, 0) * width)
    assert (network_params(network) + biases, network_macs(network)) == (params, macs)


def test_resnets_are_torchvisions_blocks():
    block = torchvision_module("models.resnet").BasicBlock

    def beside(cin, cout):
        return nn.Sequential(nn.Conv2d(cin, cout, 1, 2, bias=False), nn.BatchNorm2d(cout))

    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(block(16, 16), block(16, 32, 2, beside(16, 32)), block(32, 64, 2, beside(32, 64))),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    space = handpicked("resnet-16-32-64", 28, 1, 10)
    network = space.network(space.largest)
    assert (network_params(network), network_macs(network)) == counts(model, 1, 28)


def test_a_plain_network_is_six_convolutions():
    space = handpicked("plain-8-16-32", 28, 1, 10)
    layers = [layer for op in space.network(space.largest).ops for layer in op.block.layers if hasattr(layer, "kernel")]
    assert [(layer.out, layer.kernel, layer.stride) for layer in layers] == [
        (8, 3, 1), (8, 3, 1), (16, 3, 2), (16, 3, 1), (32, 3, 2), (32, 3, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*PUBLISHED, "efficientnet_lite0", "resnet-8-16-32", "plain-16-32-64", "resnet_28"])
def test_every_network_takes_small_images(name):
    space = handpicked(f"{name}@0.1", 28, 1, 7)
    assert space.size == 1
    subnet = Subnet(space.network(space.largest)).eval()
    assert subnet(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


def test_a_subnet_of_a_space_can_be_picked():
    base = load_space("resnet_28")
    space = handpicked_subnet(base, base.smallest.to_json(), 3, 7)
    network = space.network(space.largest)
    assert (space.size, network.input_shape, network.ops[-1].cout) == (1, (3, 20, 20), 7)
    assert network_macs(network) > network_macs(base.network(base.smallest)), "three channels instead of one"
    assert picked_name(space) == f"resnet_28-{base.smallest.key[:12]}"


def test_names_tell_networks_apart():
    assert handpicked("mobilenet_v2@0.25", 28, 1, 10).name == "mobilenet_v2@0.25-c1-n10"
    assert handpicked("resnet-8-16-32@1.0", 28, 3, 100).name == "resnet-8-16-32-c3-n100"
    for wrong in ("resnet-8", "vgg", "mobilenet_v2@0", "mobilenet_v2@x"):
        with pytest.raises(UsageError, match=r"unknown network|multiplier"):
            handpicked(wrong, 28, 1, 10)
