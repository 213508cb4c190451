import json

import numpy as np
import pytest

from ofa_deploy.differentiable import random_genotype
from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.search.strategies import STRATEGIES
from ofa_deploy.space import CellSpace, PopulationCodec, network_macs, network_memory

RECIPE = """
name: cells
resolution: 16
nodes: 2
threads: 1
data: {name: digits, valid: 297}
train: {cells: 3, channels: 4, epochs: 1, batch_size: 256, lr: 0.05}
"""


@pytest.fixture
def codec():
    genotype = random_genotype(2, np.random.default_rng(0))
    return PopulationCodec(CellSpace("cells", genotype, (16, 32), (4, 8, 16), (3, 5), 1, 10))


def problem(codec, **bounds):
    """The largest network by MACs is the best one, and takes a millisecond for a million of them."""
    largest = codec.macs(codec.encode([codec.space.largest]))[0]

    def latency(population):
        mean = codec.macs(population) / 1e6
        return mean, 0.01 * mean

    return Problem(codec, lambda population: codec.macs(population) / largest, latency, Constraints(**bounds))


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"differentiable"}))
def test_every_strategy_finds_the_largest_network_that_fits(codec, strategy):
    macs = codec.macs(codec.everything(100)) / 1e6
    budget = float(np.median(macs))
    found = search(problem(codec, max_ms=budget), strategy=strategy, evaluations=400)
    fitting = macs[macs * (1 + 0.01 * 1.6449) <= budget]
    assert network_macs(codec.space.network(found.best.arch)) / 1e6 == pytest.approx(fitting.max())
    assert found.best.upper_ms <= budget
    assert [p.accuracy for p in found.finalists] == sorted((p.accuracy for p in found.finalists), reverse=True)


def test_what_cannot_be_met_says_what_could(codec):
    with pytest.raises(InfeasibleBudget, match="no subnet of cells runs in 1e-06 ms: the fastest needs"):
        search(problem(codec, max_ms=1e-6))


def test_blocks_inside_cells_and_memory_between_them_are_bounded(codec):
    archs = codec.decode(codec.everything(100))
    memory = {arch: network_memory(codec.space.network(arch)) / 1e6 for arch in archs}
    blocks = {arch: len(codec.space.network(arch).ops) for arch in archs}
    budget, most = float(np.median([*memory.values()])), max(blocks.values()) - 1
    found = search(problem(codec, max_memory_mb=budget, max_layers=most)).best.arch
    fitting = [arch for arch in archs if memory[arch] <= budget and blocks[arch] <= most]
    assert found == max(fitting, key=lambda arch: network_macs(codec.space.network(arch)))


@pytest.mark.parametrize("weights", [["--random-weights"], []], ids=["random", "trained"])
def test_from_cells_to_a_verified_bundle(ofa_deploy, tmp_path, weights):
    (tmp_path / "cells.yaml").write_text(RECIPE)
    genotype = random_genotype(2, np.random.default_rng(3)).to_json()
    (tmp_path / "genotype.json").write_text(json.dumps(genotype))
    words = [
        "extract",
        "--family",
        "darts",
        "-c",
        "cells.yaml",
        "--genotype",
        "genotype.json",
        "--target",
        "jetson_nano",
    ]
    words += ["--channels", "4", "--channels", "8", "--max-ms", "100", "-o", "bundle", "--json", *weights]
    done = ofa_deploy(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["subnet"]["arch"]["channels"] == 8
    assert report["latency"]["fits"]
    assert report["parity"]["max_abs"] < 1e-4
    assert (report["accuracy"]["measured"] is None) == bool(weights)
    verified = ofa_deploy("verify", "bundle", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr


def test_predictions_of_cells_are_audited_on_sizes_that_were_not_measured(ofa_deploy, tmp_path):
    (tmp_path / "cells.yaml").write_text(RECIPE)
    for seed in (3, 4):
        genotype = random_genotype(2, np.random.default_rng(seed)).to_json()
        (tmp_path / f"genotype-{seed}.json").write_text(json.dumps(genotype))
    family = ["--family", "darts", "-c", "cells.yaml", "--target", "jetson_nano", "--genotype", "genotype-3.json"]
    sizes = [w for c in (3, 4, 5) for w in ("--cells", str(c))] + [
        w for c in (4, 6, 8, 10) for w in ("--channels", str(c))
    ]
    done = ofa_deploy("audit", *family, *sizes, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["n_heldout"], answer["n_fit"]) == (4, 8)
    assert answer["mape"] < 0.1
    again = ofa_deploy("audit", *family, *sizes, cwd=tmp_path)
    assert again.returncode == 2
    assert "every network of cells was measured already" in again.stderr

    budget = ["--max-ms", "100", "--random-weights", "-o", "bundle", "--json"]
    report = json.loads(ofa_deploy("extract", *family, *sizes[:4], *budget, cwd=tmp_path).stdout)
    assert report["audit"]["mape"] == answer["mape"]
    assert report["audit_command"].startswith("ofa-deploy audit --target jetson_nano")
    assert (
        "--family darts --config cells.yaml --genotype genotype-3.json --cells 3 --cells 4" in report["audit_command"]
    )
    assert ofa_deploy("verify", "bundle", cwd=tmp_path).returncode == 0
    family[-1] = "genotype-4.json"  # other cells of the same name: that audit is not about them
    assert json.loads(ofa_deploy("extract", *family, *budget, cwd=tmp_path).stdout)["audit"] is None


def test_options_that_do_not_go_together(ofa_deploy, tmp_path):
    assert "need --family darts" in ofa_deploy("extract", "--max-ms", "1", "--cells", "3", cwd=tmp_path).stderr
    audit = ofa_deploy("audit", "--family", "darts", "-c", "cells.yaml", "--resolution", "16", cwd=tmp_path)
    assert "--space and --resolution do not work with --family darts" in audit.stderr
    assert "needs the recipe" in ofa_deploy("extract", "--max-ms", "1", "--family", "darts", cwd=tmp_path).stderr


def test_strategies_are_compared_and_shown(ofa_deploy, tmp_path):
    search = "search: {epochs: 1, cells: 3, channels: 4, batch_size: 256, partial: 2}\n"
    (tmp_path / "cells.yaml").write_text(RECIPE + search)
    words = ["darts", "search", "-c", "cells.yaml", "--evaluations", "6", "-o", "found", "--json"]
    for strategy in ("gradient", "random", "regularized"):
        words += ["--strategy", strategy]
    done = ofa_deploy(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["strategies"]
    assert [row["strategy"] for row in rows] == ["gradient", "random", "regularized"]
    assert [row["evaluations"] for row in rows] == [None, 6, 6]
    shown = ofa_deploy("darts", "show", "found", "-o", "found.html", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "<svg" in (tmp_path / "found.html").read_text()
    assert ofa_deploy("darts", "show", "found/random.json", cwd=tmp_path).returncode == 0
