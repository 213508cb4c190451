"""`--precision`: each has a table of its own, and one search takes the best over several."""

import json
from pathlib import Path

import pytest

SPACE = """
name: narrow
base: tiny_16
resolutions: [16]
widths: [1.0]
"""
NANO = ("--target", "jetson_nano")


@pytest.fixture(scope="module")
def folder(ofa_deploy, tmp_path_factory) -> Path:
    """A simulated device, profiled in two precisions."""
    found = tmp_path_factory.mktemp("precisions")
    (found / "space.yaml").write_text(SPACE)
    for precision in ("fp32", "fp16"):
        options = ("--space", "space.yaml", "--networks", "3", "--precision", precision)
        done = ofa_deploy("profile", *NANO, *options, "--json", cwd=found)
        assert json.loads(done.stdout)["condition"]["precision"] == precision, done.stderr
    return found


def ask(ofa_deploy, folder: Path, ms: str, *options: str):
    asked = ("--space", "space.yaml", "--random-weights", "--max-ms", ms, "--json")
    return ofa_deploy("search", *NANO, *asked, *options, cwd=folder)


def test_every_precision_predicts_from_its_own_table(ofa_deploy, folder) -> None:
    arch = json.loads(ask(ofa_deploy, folder, "9").stdout)["arch"]
    (folder / "arch.json").write_text(json.dumps(arch))
    means = {}
    for precision in ("fp32", "fp16"):
        words = ("predict", "arch.json", *NANO, "--space", "space.yaml", "--precision", precision, "--json")
        means[precision] = json.loads(ofa_deploy(*words, cwd=folder).stdout)[0]["mean_ms"]
    assert means["fp16"] < means["fp32"]


def test_a_search_takes_the_best_over_precisions(ofa_deploy, folder) -> None:
    loose = json.loads(ask(ofa_deploy, folder, "9", "--precision", "fp32,fp16").stdout)
    assert loose["precision"] == "fp32", "the largest subnet fits in both: the first named counts"
    uppers = {name: one["upper_ms"] for name, one in loose["precisions"].items()}
    assert uppers["fp16"] < uppers["fp32"]
    fastest = [ask(ofa_deploy, folder, "0.001", "--precision", name) for name in ("fp16", "fp32")]
    assert [done.returncode for done in fastest] == [3, 3]
    low, high = (float(done.stderr.rsplit("--max-ms ", 1)[1].split()[0]) for done in fastest)
    tight = json.loads(ask(ofa_deploy, folder, str((low + high) / 2), "--precision", "fp32,fp16").stdout)
    assert tight["precision"] == "fp16"
    assert "the fastest needs" in tight["precisions"]["fp32"]["refused"]


@pytest.mark.parametrize(
    ("precision", "code", "words"),
    [
        ("fp32,fp64", 2, "'fp64' is not one of fp32, fp16, bf16, int8"),
        ("int8", 2, "measure with: ofa-deploy profile --target jetson_nano --precision int8"),
    ],
)
def test_what_cannot_be_had_is_said(ofa_deploy, folder, precision, code, words) -> None:
    done = ask(ofa_deploy, folder, "9", "--precision", precision)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
