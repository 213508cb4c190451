import numpy as np
import pytest
import torch
from torch import nn

from ofa_deploy.blocks import random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.export import parity, run_onnx
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import PRESETS
from ofa_deploy.supernet import Subnet

NETWORK = PRESETS["tiny_16"].network(PRESETS["tiny_16"].smallest)


def exported(batch=1, weights=None):
    target = TargetProfile(name="bench", description="a test's", runtime="onnxruntime", batch=batch)
    return onnx_bytes(write_onnx(NETWORK, weights or random_weights(NETWORK), target))


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *NETWORK.input_shape)).astype(np.float32)


@pytest.fixture
def subnet():
    module = Subnet(NETWORK)
    module.load_weights(random_weights(NETWORK))
    return module.eval()


def test_a_static_batch_is_fed_in_chunks_and_keeps_the_order(tmp_path):
    x = images(11)
    single = run_onnx(exported(1), [x])
    assert single.shape == (11, 10)
    np.testing.assert_allclose(run_onnx(exported(4), [x[:5], x[5:6], x[6:]]), single, atol=1e-5)
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(4))
    np.testing.assert_allclose(run_onnx(path, iter([x]), threads=2), single, atol=1e-5)


def test_no_images_give_no_answers():
    assert run_onnx(exported(), []).shape == (0, 10)
    assert run_onnx(exported(), [images(0)]).shape == (0, 10)


def test_wrong_images_and_broken_files_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"takes images of shape \[1, 16, 16\]"):
        run_onnx(exported(), [np.zeros((1, 3, 16, 16), np.float32)])
    with pytest.raises(UsageError, match="cannot load the model"):
        run_onnx(exported()[:1000], [images(1)])
    with pytest.raises(UsageError, match=r"cannot load .*absent\.onnx"):
        run_onnx(tmp_path / "absent.onnx", [images(1)])


def test_parity_of_a_faithful_export(subnet):
    x = images(7)
    result = parity(subnet, exported(4), x)
    assert result.max_abs <= 1e-4
    assert result.figures.top1_agreement == 1.0
    assert result.figures.n == len(result.torch) == len(result.onnx) == 7
    assert np.abs(result.torch - result.onnx).max() == pytest.approx(result.max_abs)


def test_parity_shows_an_unfaithful_export(subnet):
    weights = random_weights(NETWORK)
    weights["classifier.linear.bias"] = weights["classifier.linear.bias"] + np.eye(10, dtype=np.float32)[3] * 50
    result = parity(subnet, exported(weights=weights), images(7))
    assert result.max_abs == pytest.approx(50, rel=1e-3)
    assert result.figures.top1_agreement < 1


def test_parity_leaves_the_mode_of_the_module_alone(subnet):
    subnet.train()
    before = {name: value.clone() for name, value in subnet.state_dict().items()}
    parity(subnet, exported(), images(2))
    assert subnet.training
    assert all(torch.equal(value, before[name]) for name, value in subnet.state_dict().items())


def test_logits_that_are_not_finite_are_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), torch.nan)

    with pytest.raises(OfaDeployError, match="not finite"):
        parity(Broken(), exported(), images(2))
