import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ofa_deploy.config import read_document
from ofa_deploy.differentiable import (
    DartsRecipe,
    bilevel,
    derive,
    load_network,
    random_genotype,
    search_cells,
    train_network,
)
from ofa_deploy.differentiable import cell_search as searching_module
from ofa_deploy.differentiable.bilevel import dominant_eigenvalue, first_order, second_order
from ofa_deploy.differentiable.collapse import should_stop
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise
from ofa_deploy.differentiable.recipe import CellSearch
from ofa_deploy.errors import UsageError
from ofa_deploy.space import Genotype

SKIP, SEP = CANDIDATES.index("skip_connect"), CANDIDATES.index("sep_conv_3x3")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """An npz of 96 easy images, so that a search takes seconds."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = rng.integers(0, 60, (96, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images, labels=labels)
    return path


def recipe(digits, search=None, train=None, **changes):
    return read_document(
        DartsRecipe,
        {
            "name": "bars",
            "resolution": 8,
            "nodes": 1,
            "threads": 1,
            "checkpoint_seconds": 0,
            "data": {"name": "npz", "root": str(digits), "valid": 12, "test": 0.2},
            "search": {"epochs": 2, "cells": 3, "channels": 4, "batch_size": 16, "arch_lr": 0.05, **(search or {})},
            "train": {"epochs": 3, "cells": 3, "channels": 4, "batch_size": 16, "lr": 0.1, **(train or {})},
            **changes,
        },
    )


def network(**changes):
    alive = {kind: torch.ones(edge_count(1), len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
    made = SearchNetwork(Settings(1, 3, 8, 4, 3, 1, **{"alive": alive, **changes}))
    initialise(made, 0)
    return made.train()


def batch(seed, count=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


@pytest.mark.parametrize(
    "changes", [{}, {"partial": 2}, {"auxiliary_skip": True}, {"sigmoid": True}, {"partial": 2, "auxiliary_skip": True}]
)
def test_every_parameter_of_the_architecture_learns(changes):
    made = network(**changes)
    made.extra = 0.5
    _, gradients = first_order(made, batch(0), zero_one=0.0)
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)
    assert len(gradients) == (4 if changes.get("partial") else 2)


def test_dead_operations_are_not_built():
    alive = {kind: torch.zeros(2, len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
    for table in alive.values():
        table[:, [SKIP, SEP]] = True
    made = network(alive=alive)
    assert {len(edge.operations) for cell in made.cells for edge in cell.edges} == {2}
    torch.testing.assert_close(made.weights("normal")[:, [SKIP, SEP]].sum(1), torch.ones(2))


def test_the_second_order_gradient_is_that_of_a_step_ahead(monkeypatch):
    """Against autograd through the step itself; a small difference is one between whose sides no ReLU changes."""
    monkeypatch.setattr(bilevel, "REACH", 1e-6)
    made, train, valid = network().double(), batch(1), batch(2)
    train, valid = ((images.double(), labels) for images, labels in (train, valid))
    rate, decay = 0.1, 1e-2
    weights, names = list(made.learned.values()), list(made.learned)
    steps = {name: torch.full_like(w, 1e-3) for name, w in made.learned.items()}
    _, found = second_order(made, train, valid, 0.0, rate, steps, decay)
    inner = torch.autograd.grad(F.cross_entropy(made(train[0]), train[1]), weights, create_graph=True)
    ahead = {n: w - rate * (steps[n] + g + decay * w) for n, w, g in zip(names, weights, inner, strict=True)}
    loss = F.cross_entropy(torch.func.functional_call(made, ahead, (valid[0],)), valid[1])
    wanted = torch.autograd.grad(loss, made.architecture)
    _, first = first_order(made, valid, 0.0)
    for a, b, c in zip(found, wanted, first, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=1e-5)
        assert not torch.allclose(c, b, rtol=0.02, atol=1e-5)


def test_the_dominant_eigenvalue_is_that_of_the_hessian():
    made, valid = network().double(), batch(3)
    valid = valid[0].double(), valid[1]
    alphas = list(made.alphas.values())

    def loss(*values):
        names = [f"alphas.{kind}" for kind in made.alphas]
        return F.cross_entropy(
            torch.func.functional_call(made, dict(zip(names, values, strict=True)), (valid[0],)), valid[1]
        )

    blocks = torch.autograd.functional.hessian(loss, tuple(alphas))
    sizes = [a.numel() for a in alphas]
    whole = torch.cat([torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in range(2)], 1) for i in range(2)], 0)
    largest = torch.linalg.eigvalsh(whole).abs().max().item()
    assert dominant_eigenvalue(made, valid, 0) == pytest.approx(largest, rel=0.2)


def table(*edges):
    rows = np.full((len(edges), len(CANDIDATES)), 0.01)
    for row, values in zip(rows, edges, strict=True):
        for column, value in values.items():
            row[CANDIDATES.index(column)] = value
    return rows.tolist()


def test_derivation_keeps_the_two_heaviest_edges_and_never_none():
    edges = table(
        {"none": 0.9, "sep_conv_3x3": 0.2},
        {"skip_connect": 0.5},
        {"max_pool_3x3": 0.6},
        {"none": 0.9, "dil_conv_3x3": 0.1},
        {"skip_connect": 0.3, "sep_conv_5x5": 0.2},
    )
    found = derive({"normal": edges, "reduce": edges})
    assert found.normal == (
        (("sep_conv_3x3", 0), ("skip_connect", 1)),
        (("max_pool_3x3", 0), ("skip_connect", 2)),
    )
    limited = derive({"normal": edges, "reduce": edges}, max_skips=1)
    assert limited.skips == 1
    assert limited.normal[1] == (("max_pool_3x3", 0), ("sep_conv_5x5", 2))
    assert limited.reduce == found.reduce


def test_wrong_weights_are_named():
    with pytest.raises(UsageError, match="the normal cell"):
        derive({"normal": [[1.0]], "reduce": [[1.0]]})


def record(epoch, skip, eigenvalue=None, frozen=False):
    edges = table({"skip_connect": skip, "sep_conv_3x3": 0.5}, {"skip_connect": skip, "sep_conv_3x3": 0.5})
    weights = {"normal": edges, "reduce": edges}
    return {"epoch": epoch, "frozen": frozen, "weights": weights, "eigenvalue": eigenvalue}


def test_many_skips_stop_a_search_at_the_epoch_before():
    config = CellSearch(stop_skips=2)
    fine = [record(1, 0.1), record(2, 0.2)]
    assert should_stop(config, fine) is None
    stop = should_stop(config, [*fine, record(3, 0.9)])
    assert (stop.guard, stop.epoch) == ("stop_skips", 2)
    assert should_stop(config, [record(1, 0.9, frozen=True)]) is None


def test_a_growing_eigenvalue_stops_a_search_a_window_back():
    config = CellSearch(stop_eigenvalue=0.75, window=2)
    flat = [record(i + 1, 0.1, value) for i, value in enumerate([1.0, 1.0, 1.1, 1.1])]
    assert should_stop(config, flat) is None
    steep = [record(i + 1, 0.1, value) for i, value in enumerate([1.0, 1.0, 2.0, 2.0])]
    stop = should_stop(config, steep)
    assert (stop.guard, stop.epoch) == ("stop_eigenvalue", 2)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "search",
    [
        {"order": "second"},
        {"partial": 2, "auxiliary_skip": True, "frozen_epochs": 1, "max_skips": 0, "stop_eigenvalue": 0.01},
        {"relaxation": "sigmoid", "zero_one": 1.0},
        {"stages": [{"epochs": 1, "cells": 3}, {"epochs": 1, "cells": 4, "operations": 3}]},
    ],
    ids=["second order", "partial", "sigmoid", "progressive"],
)
def test_a_killed_search_ends_as_one_that_was_not(digits, tmp_path, search):
    config = recipe(digits, search)
    whole = search_cells(config, tmp_path / "whole")
    steps = []

    def kill(line):
        steps.append(line["done"])
        if len(steps) == 3:
            raise Killed

    with pytest.raises(Killed):
        search_cells(config, tmp_path / "cut", report=kill)
    with pytest.raises(UsageError, match="--resume"):
        search_cells(config, tmp_path / "cut")
    again = search_cells(config, tmp_path / "cut", resume=True)
    without = [{k: v for k, v in found.items() if k != "seconds"} for found in (whole, again)]
    assert json.dumps(without[0]) == json.dumps(without[1])
    assert Genotype.of(whole["genotype"]).skips <= search.get("max_skips", 4)
    other = recipe(digits, {**search, "arch_lr": 0.04})
    with pytest.raises(UsageError, match=r"search\.arch_lr was 0\.05, is now 0\.04"):
        search_cells(other, tmp_path / "cut")


def test_guards_are_reported_when_they_act(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(searching_module, "initialise", lambda made, seed: favour_skips(made, seed))
    found = search_cells(recipe(digits, {"stop_skips": 1, "max_skips": 0, "epochs": 3}), tmp_path)
    assert [guard["guard"] for guard in found["acted"]] == ["stop_skips", "max_skips"]
    assert len(found["history"]) == 1
    assert Genotype.of(found["genotype"]).skips == 0


def favour_skips(made, seed):
    initialise(made, seed)
    with torch.no_grad():
        for alphas in made.alphas.values():
            alphas[:, SKIP] += 3


def test_a_trained_network_learns_resumes_and_reads_back(digits, tmp_path):
    config = recipe(digits, train={"auxiliary": 0.4, "drop_path": 0.2, "epochs": 6})
    genotype = random_genotype(1, np.random.default_rng(1))
    whole = train_network(config, genotype, tmp_path / "whole")
    assert whole.summary["valid"] > 0.6
    count = []

    def kill(line):
        count.append(line)
        if len(count) == 4:
            raise Killed

    with pytest.raises(Killed):
        train_network(config, genotype, tmp_path / "cut", report=kill)
    again = train_network(config, genotype, tmp_path / "cut", resume=True)
    for name, value in whole.subnet.weights().items():
        np.testing.assert_array_equal(value, again.subnet.weights()[name])
    read = load_network(tmp_path / "whole")
    assert read.space == whole.space
    assert not any("auxiliary" in name for name in read.subnet.weights())
    other = random_genotype(1, np.random.default_rng(2))
    with pytest.raises(UsageError, match=r"another recipe: genotype\.normal was"):
        train_network(config, other, tmp_path / "whole")


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ({"partial": 3}, "cannot be divided by partial 3"),
        ({"zero_one": 1.0}, "needs relaxation: sigmoid"),
        ({"stages": [{"epochs": 1, "cells": 4, "operations": 3}, {"epochs": 1, "cells": 3}]}, "only become fewer"),
        ({"channels": 3}, "multiple of 2"),
    ],
)
def test_recipes_that_do_not_fit(digits, search, complaint):
    with pytest.raises(UsageError, match=complaint):
        recipe(digits, search)
