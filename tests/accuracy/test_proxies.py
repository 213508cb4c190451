"""Zero-cost proxies: their definitions on networks small enough to work out, and what they must not touch."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ofa_deploy.accuracy.proxies import PROXIES, proxy_scores
from ofa_deploy.blocks import Network, OpSpec
from ofa_deploy.errors import UsageError
from ofa_deploy.space import PopulationCodec, StageSpec, load_space
from ofa_deploy.supernet import Subnet, initialise

CLASSIFIER = OpSpec("classifier", 1, 1, 2, 0, 3, act="none")


@pytest.fixture(scope="module")
def batch():
    rng = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 16, 16, generator=rng), torch.randint(0, 10, (16,), generator=rng)


def subnet(arch=None, seed=0):
    space = load_space("tiny_16")
    module = Subnet(space.network(arch or space.smallest))
    initialise(module, seed)
    return module


def linear_net(weight):
    """The last layer alone: every proxy of it can be worked out by hand."""
    module = Subnet(Network((CLASSIFIER,), ("classifier",)))
    with torch.no_grad():
        module.classifier.linear.weight.copy_(torch.tensor(weight))
        module.classifier.linear.bias.zero_()
    return module


def test_synflow_of_a_linear_layer_is_the_sum_of_its_absolute_weights():
    net = linear_net([[1.0, -2.0], [3.0, 0.5], [-1.0, 0.25]])
    got = proxy_scores(net, torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), ("synflow",))
    assert got == {"synflow": pytest.approx(np.log(7.75))}


def test_grad_norm_of_a_linear_layer_is_the_norm_of_its_gradient():
    net, x, y = linear_net([[1.0, -2.0], [3.0, 0.5], [-1.0, 0.25]]), torch.randn(8, 2), torch.arange(8) % 3
    weight = net.classifier.linear.weight.detach().clone().requires_grad_()
    F.cross_entropy(x @ weight.T, y).backward()
    assert proxy_scores(net, x, y, ("grad_norm",))["grad_norm"] == pytest.approx(float(weight.grad.norm()), rel=1e-5)


def test_fisher_follows_its_definition(batch):
    x, y = batch
    ops = (OpSpec("head", 16, 16, 1, 0, 4, act="none"), OpSpec("classifier", 1, 1, 4, 0, 10, act="none"))
    net = Subnet(Network(ops, ("head", "classifier")))
    initialise(net, 3)
    features = net.head.train()(x).detach().requires_grad_()
    F.cross_entropy(net.classifier(features), y).backward()
    expected = 0.5 * ((features * features.grad * 16).square().mean(0)).sum()
    assert proxy_scores(net, x, y, ("fisher",))["fisher"] == pytest.approx(expected.item(), rel=1e-4)


def test_every_layer_of_relus_without_biases_passes_on_the_same_synaptic_flow(batch):
    """Tanaka et al., 2020, §4: where a network is homogeneous, the scores of a layer sum up to the network's output."""
    stages = (StageSpec(16, 2, depths=(1,), kernels=(3,)), StageSpec(24, 2, depths=(1,), kernels=(5,)))
    space = replace(load_space("tiny_16"), name="relus", stages=stages, stem_act="relu", head_act="relu")
    net = Subnet(space.network(space.largest))
    initialise(net, 0)
    positive = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
        for module in positive.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
                module.weight.fill_(1.0)
        flow = positive(torch.ones(1, *net.network.input_shape, dtype=torch.double)).sum()
    layers = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in net.modules())
    assert layers == 1 + 3 + 3 + 2
    assert proxy_scores(net, *batch, ("synflow",))["synflow"] == pytest.approx(float((layers * flow).log()))


def test_naswot_is_the_log_determinant_of_how_many_units_agree(batch):
    """Mellor et al., 2021, §3: entry i, j is the number of units less the Hamming distance of the codes."""
    ops = (OpSpec("head", 16, 16, 1, 0, 30, act="relu"), OpSpec("classifier", 1, 1, 30, 0, 10, act="none"))
    net = Subnet(Network(ops, ("head", "classifier")))
    initialise(net, 3)
    x, y = batch
    conv = F.conv2d(x, net.head.conv.weight)
    mean, var = conv.mean((0, 2, 3), keepdim=True), conv.var((0, 2, 3), keepdim=True, unbiased=False)
    codes = ((conv - mean) / (var + net.head.bn.eps).sqrt() > 0).flatten(1).numpy()
    agreeing = [[(one == other).sum() for other in codes] for one in codes]
    expected = np.linalg.slogdet(np.array(agreeing, dtype=float)).logabsdet
    assert proxy_scores(net, x, y, ("naswot",))["naswot"] == pytest.approx(expected, rel=1e-6)


def test_images_that_look_alike_lower_naswot(batch):
    x, y = batch
    alike = x[:1] + 0.01 * x
    net = subnet()
    assert proxy_scores(net, alike, y, ("naswot",))["naswot"] < proxy_scores(net, x, y, ("naswot",))["naswot"]


def test_scores_do_not_depend_on_which_others_are_asked_for_and_leave_the_network_alone(batch):
    net = subnet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    together = proxy_scores(net, *batch)
    assert {name: proxy_scores(net, *batch, (name,))[name] for name in PROXIES} == together
    assert all(np.isfinite(value) for value in together.values())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_synflow_and_naswot_prefer_the_larger_network(batch):
    space = load_space("tiny_16")
    codec = PopulationCodec(space)
    few, many = codec.decode(
        codec.encode([{**space.smallest.to_json(), "width": 1.0}, {**space.largest.to_json(), "resolution": 16}])
    )
    small, large = (proxy_scores(subnet(arch), *batch) for arch in (few, many))
    assert large["synflow"] > small["synflow"]
    assert large["naswot"] > small["naswot"]


def test_an_unknown_proxy_is_refused(batch):
    with pytest.raises(UsageError, match="unknown proxy 'snip'"):
        proxy_scores(subnet(), *batch, ("snip",))
