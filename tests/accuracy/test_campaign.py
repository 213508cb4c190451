"""Campaigns on real images: which ones each look sees, and that nothing is evaluated twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_deploy.accuracy import campaign as campaigns
from ofa_deploy.accuracy import proxy_gate
from ofa_deploy.accuracy.campaign import QUARTERS, Campaign, look
from ofa_deploy.accuracy.proxy_gate import ProxyGate, ProxyScores
from ofa_deploy.config import AccuracyConfig, DataConfig
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import Supernet, initialise
from ofa_deploy.training import evaluate, evaluate_all, load_data, specialise
from ofa_deploy.training.data import batches

SPACE = load_space("tiny_16")
CODEC = PopulationCodec(SPACE)
CONFIG = AccuracyConfig(recalibration_images=64, images=102)


@pytest.fixture(scope="module")
def data():
    return load_data(DataConfig(name="digits", valid=297))


@pytest.fixture(scope="module")
def supernet():
    net = Supernet(SPACE).eval()
    initialise(net, 0)
    return net


@pytest.fixture
def campaign(workspace, supernet, data):
    return Campaign(workspace.store, "net", supernet, data, CONFIG)


def test_the_looks_share_no_image_but_with_the_whole(data, campaign):
    parts = {split: look(data, CONFIG, split) for split in QUARTERS}
    assert {split: campaign.images(split) for split in QUARTERS} == {
        "valid": 102,
        "fit": 51,
        "calibration": 25,
        "check": 26,
    }
    joined = torch.cat([parts[split].valid.images for split in ("fit", "calibration", "check")])
    assert torch.equal(joined, parts["valid"].valid.images)
    assert torch.equal(joined, data.valid.images[:102])
    assert torch.equal(parts["check"].train.images, data.train.images[64:128])
    assert torch.equal(parts["fit"].train.images, data.train.images[:64])
    everything = AccuracyConfig(recalibration_images=len(data.train))
    assert len(look(data, everything, "check").train) == len(data.train)


def test_it_evaluates_with_the_threads_that_the_supernet_was_trained_with(workspace, supernet, data, monkeypatch):
    seen, before = [], torch.get_num_threads()

    def noted(*arguments, **options):
        seen.append(torch.get_num_threads())
        return evaluate_all(*arguments, **options)

    monkeypatch.setattr("ofa_deploy.accuracy.campaign.evaluate_all", noted)
    one = Campaign(workspace.store, "net", supernet, data, CONFIG, threads=1)
    assert one.accuracy(SPACE.smallest) == Campaign(workspace.store, "net", supernet, data, CONFIG).accuracy(
        SPACE.smallest
    )
    assert seen == [1], "what is known is not evaluated again"
    assert torch.get_num_threads() == before


def test_an_accuracy_is_that_of_the_subnet_on_those_images(data, supernet, campaign):
    arch = SPACE.smallest
    part = look(data, CONFIG, "calibration")
    subnet = specialise(supernet, arch, part, 64)
    images = batches(part.valid, arch.resolution, 25, data.mean, data.std)
    assert campaign.accuracies([arch], ["again"], "calibration") == [evaluate(subnet, images).accuracy]
    assert campaign.accuracy(arch) == campaign.accuracies([arch], ["fit"], "valid")[0]


def test_nothing_is_evaluated_twice(workspace, supernet, data, campaign, monkeypatch):
    archs = CODEC.decode(CODEC.sample(3, np.random.default_rng(0)))
    first = {split: campaign.accuracies(archs, ["fit"] * 3, split) for split in QUARTERS}
    assert all(len(workspace.store.evaluations("net", split)) == 3 for split in QUARTERS)
    monkeypatch.setattr(campaigns, "evaluate_all", lambda *_, **__: pytest.fail("evaluated again"))
    again = Campaign(workspace.store, "net", supernet, data, CONFIG)
    assert {split: again.accuracies(archs, ["fit"] * 3, split) for split in QUARTERS} == first
    with pytest.raises(pytest.fail.Exception, match="evaluated again"):
        again.accuracies([SPACE.largest], ["fit"], "fit")


def test_a_gate_of_proxies_passes_the_share_that_it_says(data, monkeypatch):
    monkeypatch.setattr(proxy_gate, "COMPARED", 12)
    archs = CODEC.decode(CODEC.sample(16, np.random.default_rng(1)))
    scores = ProxyScores(SPACE, data, ("synflow", "naswot"))(archs)
    assert scores.shape == (16, 2)
    passed = ProxyGate(CODEC, data, {"synflow": 0.5}).passes(archs)
    assert 0.2 < passed.mean() < 0.8
    assert scores[passed, 0].min() > scores[~passed, 0].max()
    both = ProxyGate(CODEC, data, {"naswot": 0.5, "synflow": 0.5}).passes(archs)
    assert not (both & ~passed).any()
