"""`gate`: a stream of subnets in, a stream of verdicts out."""

import json
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.space import PopulationCodec, load_space

CODEC = PopulationCodec(load_space("tiny_16"))
ROWS = CODEC.sample(30, np.random.default_rng(0))
BOUND = float(np.median(CODEC.macs(ROWS)))


@pytest.fixture
def archs(tmp_path: Path) -> Path:
    lines = [json.dumps(arch.to_json()) for arch in CODEC.decode(ROWS)]
    lines[3:3] = ["", "no json", "[1]", json.dumps({"space": "tiny_16", "resolution": 17}), '{"space": "small_28"}']
    path = tmp_path / "archs.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_verdict_for_every_line(ofa_deploy, tmp_path: Path, archs: Path) -> None:
    done = ofa_deploy("gate", str(archs), "--max-macs", str(BOUND), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v["line"] for v in verdicts] == [1, 2, 3, *range(5, 36)]
    assert [v["line"] for v in verdicts if "error" in v] == [5, 6, 7, 8]
    judged = [v for v in verdicts if "error" not in v]
    assert [v["feasible"] for v in judged] == (CODEC.macs(ROWS) <= BOUND).tolist()
    assert all((v["reasons"] == {}) == v["feasible"] for v in judged)
    broken = next(v for v in judged if not v["feasible"])
    assert broken["reasons"]["max_macs"] == pytest.approx(broken["macs"] / BOUND - 1, rel=1e-3)
    assert "subnets 34" in done.stderr


def test_one_document(ofa_deploy, tmp_path: Path, archs: Path) -> None:
    done = ofa_deploy("gate", str(archs), "--max-macs", str(BOUND), "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["counts"]["errors"] == 4
    assert answer["counts"]["feasible"] + answer["counts"]["max_macs"] == 30
    assert len(answer["verdicts"]) == 34
