"""`pareto` and `arch` as a user meets them, on a simulated table and without a supernet."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ofa_deploy.space import load_space, network_macs
from ofa_deploy.store import Workspace

SPACE = load_space("tiny_16")


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A workspace that knows two architectures."""
    with Workspace.open(tmp_path / "ws") as opened:
        for arch, accuracy in ((SPACE.smallest, 0.5), (SPACE.largest, 0.75)):
            opened.store.add_evaluation("net", arch.to_json(), arch.key, accuracy, 100, "valid", "fit")
    return tmp_path / "ws"


def test_archs_are_listed_shown_and_exported(ofa_deploy, known: Path, tmp_path: Path) -> None:
    def run(*words: str):
        return ofa_deploy("--workspace", str(known), "arch", *words, cwd=tmp_path)

    rows = json.loads(run("list", "--sort", "accuracy", "--json").stdout)
    assert [(row["accuracy"], row["state"]) for row in rows] == [(0.75, "one-shot"), (0.5, "one-shot")]
    key = SPACE.largest.key
    assert json.loads(run("show", key[:10], "--json").stdout)["evaluations"][0]["accuracy"] == 0.75
    assert run("export", key[:10], "-o", "arch.json").returncode == 0
    assert SPACE.canonical(json.loads((tmp_path / "arch.json").read_text())) == SPACE.largest
    assert len(run("export", "--all").stdout.splitlines()) == 2
    unknown = run("show", "zz")
    assert unknown.returncode == 2
    assert "arch list" in unknown.stderr
    assert run("export").returncode == 2


def test_a_front_is_drawn_and_refused_elsewhere(ofa_deploy, tmp_path: Path) -> None:
    target = ("--target", "jetson_nano")
    random = ("--space", "tiny_16", "--random-weights")
    assert ofa_deploy("profile", *target, "--space", "tiny_16", cwd=tmp_path).returncode == 0
    done = ofa_deploy("pareto", *target, *random, "--points", "3", "-o", "front.svg", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["targets"]["jetson_nano"]["simulated"]
    assert len(found["joint"]) == 3
    assert ET.parse(tmp_path / "front.svg").getroot().tag.endswith("svg")
    bounded = ("--max-layers", "7", "--min-macs", "1e5", "--max-large-kernels", "1")
    done = ofa_deploy("pareto", *target, *random, "--points", "3", *bounded, "--now", "--json", cwd=tmp_path)
    networks = [SPACE.network(p["arch"]) for p in json.loads(done.stdout)["fronts"]["jetson_nano"]]
    assert networks
    assert max(len(network.ops) for network in networks) <= 7
    assert min(map(network_macs, networks)) >= 1e5
    assert max(sum(op.kernel > 5 for op in network.ops) for network in networks) <= 1
    (tmp_path / "front.json").write_text(json.dumps({**found, "statistic": "p99"}))
    words = ("extract", *target, *random, "--max-ms", "100", "--front", "front.json")
    refused = ofa_deploy(*words, cwd=tmp_path)
    assert refused.returncode == 2
    assert "statistic p99" in refused.stderr
    (tmp_path / "front.json").write_text(json.dumps(found))
    taken = ofa_deploy(*words, "--json", cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    keys = {point["key"] for point in found["fronts"]["jetson_nano"]}
    assert json.loads(taken.stdout)["subnet"]["key"] in keys
