"""Recalibration, evaluation, and both together for a subnet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import Supernet, initialise
from ofa_deploy.training import (
    RecalibrationCache,
    batches,
    evaluate,
    evaluate_all,
    load_data,
    recalibrate,
    recalibration,
    specialise,
    specialise_all,
)

SPACE = load_space("tiny_16")


@pytest.fixture(scope="module")
def data():
    return load_data(DataConfig(name="digits", valid=237))


def test_recalibration_averages_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten())
    model[0].running_mean.fill_(99)
    parts = [(torch.randn(8, 2, 4, 4) + i, torch.zeros(8)) for i in range(3)]
    recalibrate(model, parts)
    assert not model.training
    assert model[0].momentum == 0.1
    assert torch.allclose(model[0].running_mean, torch.stack([x.mean((0, 2, 3)) for x, _ in parts]).mean(0), atol=1e-6)
    assert torch.allclose(model[0].running_var, torch.stack([x.var((0, 2, 3)) for x, _ in parts]).mean(0), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_an_interrupted_recalibration_leaves_the_model_as_it_was(training):
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(), nn.Flatten()).train(training)
    model[1].eval()
    model[0].running_mean.fill_(99)

    def images():
        yield torch.randn(8, 2, 4, 4), torch.zeros(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(model, images())
    assert model[0].momentum == 0.3
    assert [module.training for module in model] == [training, False, training]
    assert model.training == training
    assert torch.equal(model[0].running_mean, torch.full((2,), 99.0))
    assert torch.equal(model[0].running_var, torch.ones(2))


def test_recalibrating_a_subnet_leaves_the_supernet_alone(data):
    supernet = Supernet(SPACE).eval()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    subnet = specialise(supernet, SPACE.smallest, data, 64)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert not torch.equal(subnet.stem.bn.running_mean, supernet.extract(SPACE.smallest).stem.bn.running_mean)
    again = specialise(supernet, SPACE.smallest, data, 64)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in subnet.state_dict().items())


def test_a_recalibrated_subnet_computes_like_its_training_batch(data):
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    x, _ = next(iter(batches(data.train, 16, 256, data.mean, data.std)))
    subnet = supernet.extract(SPACE.smallest)
    recalibrate(subnet, [(x, torch.zeros(256))])
    with torch.no_grad():
        assert torch.allclose(subnet(x), supernet.train()(x, SPACE.smallest), atol=1e-3)


class Oracle(nn.Module):
    def forward(self, x):
        return nn.functional.one_hot(x[:, 0, 0, 0].long() % 3, 3).float()


def test_evaluation_counts():
    x = torch.arange(7).float().view(7, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 0])
    result = evaluate(Oracle().train(), [(x[:4], labels[:4]), (x[4:], labels[4:])])
    assert result.n == 7
    assert result.accuracy == pytest.approx(6 / 7)
    assert np.array_equal(result.predicted, np.arange(7) % 3)
    assert np.array_equal(result.labels, labels.numpy())
    with pytest.raises(OfaDeployError, match="at least one image"):
        evaluate(Oracle(), [])


def test_batches_cover_the_split_once_in_order(data):
    pairs = list(batches(data.test, 20, 100, data.mean, data.std))
    assert [len(labels) for _, labels in pairs] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([labels for _, labels in pairs]), data.test.labels)
    assert {tuple(x.shape[1:]) for x, _ in pairs} == {(1, 20, 20)}
    limited = list(batches(data.test, 20, 100, data.mean, data.std, limit=130))
    assert [len(labels) for _, labels in limited] == [100, 30]
    assert torch.equal(limited[1][0], pairs[1][0][:30])


def test_many_subnets_in_one_pass_are_the_same_as_one_by_one(data):
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    codec = PopulationCodec(SPACE)
    archs = [SPACE.largest, *codec.decode(codec.sample(5, np.random.default_rng(0)))]
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    together = specialise_all(supernet, archs, data, 300)
    results = evaluate_all(together, archs, data, 120)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert len({arch.resolution for arch in archs}) > 1
    for arch, found, result in zip(archs, together, results, strict=True):
        alone = specialise(supernet, arch, data, 300)
        state = alone.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
        images = batches(data.valid, arch.resolution, 256, data.mean, data.std, limit=120)
        assert np.array_equal(result.predicted, evaluate(alone, images).predicted)


def test_a_subnet_is_recalibrated_once_and_comes_out_the_same(data, monkeypatch):
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    archs, passes = [SPACE.largest, SPACE.smallest], []
    real = recalibration.shared_batches
    monkeypatch.setattr(recalibration, "shared_batches", lambda *given: passes.append(len(given[2])) or real(*given))
    cache = RecalibrationCache(supernet, data, 100)
    (first,), again = cache.subnets(archs[:1]), cache.subnets([*archs, *archs])
    assert passes == [1, 1]
    alone = [specialise(supernet, arch, data, 100) for arch in archs]
    for found, expected in zip([first, *again], [alone[0], *alone, *alone], strict=True):
        weights = expected.weights()
        assert not found.training
        assert all(np.array_equal(value, weights[name]) for name, value in found.weights().items())
    again[0].stem.conv.weight.data.zero_()
    assert torch.equal(again[2].stem.conv.weight, first.stem.conv.weight)


def test_no_batch_where_no_image_is_asked_for(data):
    assert list(batches(data.train, 16, 8, data.mean, data.std, limit=0)) == []
    assert sum(len(labels) for _, labels in batches(data.train, 16, 8, data.mean, data.std, limit=9)) == 9
