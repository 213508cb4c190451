"""EfficientNets against torchvision's, and as supernets."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import load_space, network_macs
from ofa_deploy.supernet import Supernet, inherit, initialise
from ofa_deploy.supernet.pretrained import import_torchvision
from tests.supernet.torchvision_models import distance, random_efficientnet

SIDE = 64  # fully convolutional: every resolution shows the same


@pytest.fixture(scope="module")
def b0(tmp_path_factory):
    model, path = random_efficientnet(0), tmp_path_factory.mktemp("b0") / "b0.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("phi", [0, 5])
def test_logits_are_torchvisions(phi, tmp_path):
    model, images = random_efficientnet(phi), torch.randn(2, 3, SIDE, SIDE)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    supernet, summary = import_torchvision(tmp_path / "weights.pth", load_space(f"efficientnet_b{phi}"))
    arch = supernet.space.canonical({**supernet.space.largest.to_json(), "resolution": SIDE})
    with torch.inference_mode():
        expected = model(images)
        assert distance(supernet(images, arch), expected) < 1e-4
        assert distance(supernet.extract(arch).eval()(images), expected) < 1e-4
    assert summary["source"]["file"] == "weights.pth"


def test_macs_are_those_that_torch_counts(b0):
    space = load_space("efficientnet_b0")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        b0[0](torch.randn(1, 3, SIDE, SIDE))
    arch = space.canonical({**space.largest.to_json(), "resolution": SIDE})
    assert network_macs(space.network(arch)) == counter.get_total_flops() // 2


def test_the_graph_computes_the_same(b0):
    model, path = b0
    space = load_space("efficientnet_b0")
    arch = space.canonical({**space.largest.to_json(), "resolution": SIDE})
    subnet, image = import_torchvision(path, space)[0].extract(arch).eval(), torch.randn(1, 3, SIDE, SIDE)
    for opset in (13, 17):
        target = resolve_target("local").model_copy(update={"opset": opset})
        content = onnx_bytes(write_onnx(space.network(arch), subnet.weights(), target))
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            expected = model(image)
        assert distance(torch.from_numpy(session.run(None, {"input": image.numpy()})[0]), expected) < 1e-4


def test_another_networks_weights_are_refused(b0, tmp_path):
    model, path = b0
    with pytest.raises(UsageError, match=r"\d+ keys: .*more"):
        import_torchvision(path, load_space("efficientnet_b1"))
    state = model.state_dict()
    del state["features.3.0.block.2.fc1.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "less.pth")
    with pytest.raises(UsageError, match=r"2 keys: missing features.3.0.block.2.fc1.bias; unknown extra"):
        import_torchvision(tmp_path / "less.pth", load_space("efficientnet_b0"))
    with pytest.raises(UsageError, match="none of torchvision's"):
        import_torchvision(path, load_space("tiny_16"))
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(path.read_bytes()[:10000])
        with pytest.raises(UsageError, match="damaged"):
            import_torchvision(tmp_path / name, load_space("efficientnet_b0"))


def test_a_safetensors_file_holds_the_same(b0, tmp_path):
    model, path = b0
    save_file(model.state_dict(), tmp_path / "b0.safetensors")
    one, other = (import_torchvision(p, load_space("efficientnet_b0"))[0] for p in (path, tmp_path / "b0.safetensors"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


ELASTIC = {"depth": [-1], "kernel": [3], "expand": [4], "width": [0.5], "resolution": [32]}


def elastic(name="mine", **changes):
    return load_space({"name": name, "base": "efficientnet_b0", "resolutions": [48], "elastic": ELASTIC, **changes})


def test_a_supernet_inherits_a_trained_base(b0):
    base = import_torchvision(b0[1], load_space("efficientnet_b0"))[0]
    supernet = Supernet(elastic()).eval()
    initialise(supernet, 1)
    inherit(supernet, base)
    images = torch.randn(2, 3, 48, 48)
    arch = base.space.canonical({**base.space.largest.to_json(), "resolution": 48})
    with torch.inference_mode():
        assert distance(supernet(images, supernet.space.largest), base(images, arch)) < 1e-4
        assert supernet(images, supernet.space.smallest).shape == (2, 1000)


def test_other_classes_start_anew_and_other_networks_are_refused(b0):
    base = import_torchvision(b0[1], load_space("efficientnet_b0"))[0]
    supernet = Supernet(elastic(num_classes=7))
    initialise(supernet, 1)
    before = supernet.classifier.linear.weight.clone()
    inherit(supernet, base)
    assert torch.equal(supernet.classifier.linear.weight, before)
    assert torch.equal(supernet.stem.conv.weight, base.stem.conv.weight)
    for changes, message in (
        ({"in_channels": 1}, "1 fields, first in stem.cin: 1, not 3"),
        ({"stem_act": "relu"}, "1 fields, first in stem.act: relu, not silu"),
        ({"bn_eps": 1e-3}, "first in stem.eps: 0.001, not 1e-05"),
    ):
        with pytest.raises(UsageError, match=message):
            inherit(Supernet(elastic(**changes)), base)


def test_narrow_blocks_inherit_the_most_important_channels(b0):
    supernet = Supernet(elastic())
    inherit(supernet, import_torchvision(b0[1], load_space("efficientnet_b0"))[0])
    importance = supernet.s1b0.project.conv.weight.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


def test_subnets_of_an_elastic_base_are_what_they_are_alone():
    space = elastic()
    supernet = Supernet(space).eval()
    initialise(supernet, 2)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for arch in (space.smallest, {**space.smallest.to_json(), "depths": list(space.largest.depths)}):
            arch = space.canonical(arch)
            np.testing.assert_allclose(
                supernet(images, arch).numpy(), supernet.extract(arch).eval()(images).numpy(), rtol=1e-4, atol=1e-5
            )
