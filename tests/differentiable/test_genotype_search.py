import numpy as np
import pytest
import torch

from ofa_deploy.config import read_document
from ofa_deploy.differentiable import DartsRecipe, search_genotypes
from ofa_deploy.differentiable.genotypes import GenotypeCodec
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise, one_hot
from ofa_deploy.differentiable.one_shot import Judge
from ofa_deploy.errors import UsageError
from ofa_deploy.search import GRADIENT, STRATEGIES, Constraints, Problem, search
from ofa_deploy.space.genotype import OPERATIONS


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    rng, labels = np.random.default_rng(0), np.arange(96) % 3
    images = rng.integers(0, 60, (96, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images, labels=labels)
    data = {"name": "npz", "root": str(path), "valid": 12, "test": 0.2}
    parts = {"search": {"epochs": 2, "cells": 3, "channels": 4, "batch_size": 16, "partial": 2}}
    return read_document(
        DartsRecipe, {"name": "bars", "resolution": 8, "nodes": 2, "threads": 1, "data": data, **parts}
    )


def test_every_row_is_a_genotype_and_every_operation_and_source_comes():
    codec = GenotypeCodec(3)
    found = codec.genotypes(codec.sample(300, np.random.default_rng(0)))
    edges = [edge for one in found for cell in (one.normal, one.reduce) for node in cell for edge in node]
    assert {operation for operation, _ in edges} == set(OPERATIONS)
    assert {source for _, source in edges} == {0, 1, 2, 3}
    assert all(a != b for one in found for (_, a), (_, b) in one.normal)


@pytest.mark.parametrize("strategy", sorted({*STRATEGIES} - {GRADIENT}))
def test_strategies_look_for_genotypes_as_for_subnets(strategy):
    codec = GenotypeCodec(2)

    def skips(population):
        return np.array([one.skips / 4 for one in codec.genotypes(population)])

    found = search(Problem(codec, skips, None, Constraints()), 0, strategy, 1500)
    assert found.evaluations <= 1500
    assert found.best.accuracy >= 0.75


def test_fixed_weights_give_what_the_mixture_would():
    alive = {kind: torch.ones(edge_count(2), len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
    network = SearchNetwork(Settings(1, 3, 8, 4, 3, 2, alive, sigmoid=True)).eval()
    initialise(network, 0)
    genotype = GenotypeCodec(2).genotypes(GenotypeCodec(2).sample(1, np.random.default_rng(1)))[0]
    with torch.no_grad():
        for kind in KINDS:
            network.alphas[kind].copy_(200 * one_hot(getattr(genotype, kind)) - 100)
        x = torch.randn(2, 1, 8, 8)
        torch.testing.assert_close(network(x, genotype), network(x))


def test_shared_weights_learn_and_are_kept(recipe, tmp_path):
    found = search_genotypes(recipe, tmp_path, "random", 12)
    assert found["evaluations"] <= 12
    assert found["accuracy"] == max(step["accuracy"] for step in found["trace"])
    kept = (tmp_path / "one_shot.safetensors").read_bytes()
    again = search_genotypes(recipe, tmp_path, "random", 12)
    assert again["genotype"] == found["genotype"]
    assert (tmp_path / "one_shot.safetensors").read_bytes() == kept
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(UsageError, match="another recipe"):
        Judge(other, tmp_path)
