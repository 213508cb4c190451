"""A kind of device that nobody here owns, as a user types it in an empty folder: it works, and every output says so."""

import json
from pathlib import Path

import pytest

from ofa_deploy.documents.report_document import Report
from ofa_deploy.latency import read_csv
from ofa_deploy.report.comparison import Entry, render_comparison
from ofa_deploy.space import load_space

NANO = ("--target", "jetson_nano")
SHOUT = "SIMULATED"


@pytest.fixture(scope="module")
def walk(ofa_deploy, tmp_path_factory):
    """A folder in which a bundle was extracted, and what the command said."""
    folder = tmp_path_factory.mktemp("empty")
    return folder, ofa_deploy("extract", *NANO, "--max-ms", "15", cwd=folder)


@pytest.fixture(scope="module")
def bundle(walk) -> Path:
    return walk[0] / ".ofa" / "bundles" / "jetson_nano-ms15"


def test_extract_runs_as_typed(walk) -> None:
    done = walk[1]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SHOUT} p50 ")
    assert "budget 15 ms" in done.stdout
    assert "The budget does not bind: the largest subnet of fashion_28 takes" in done.stdout
    assert "supernets/fashion_mnist_boxed/supernet.safetensors" in done.stderr, "which supernet was taken"


def test_every_file_of_the_bundle_says_simulated(bundle) -> None:
    for name in ("report.md", "report.html", "manifest.json"):
        assert SHOUT in (bundle / name).read_text(), name
    report = json.loads((bundle / "report.json").read_text())
    assert report["target"]["simulated"] is True
    assert report["target"]["precision"] == "fp16"
    assert SHOUT in report["verdict"]["text"]
    assert any("model.onnx is fp32" in note for note in report["notes"])
    assert json.loads((bundle / "manifest.json").read_text())["provenance"]["simulated"] is True
    assert SHOUT in render_comparison([Entry(Report.read(report))], "a page")


def test_the_bundle_verifies(ofa_deploy, walk, bundle) -> None:
    done = ofa_deploy("verify", str(bundle), cwd=walk[0])
    assert done.returncode == 0, done.stderr
    assert SHOUT in ofa_deploy("report", str(bundle), cwd=walk[0]).stdout


def test_every_table_says_simulated(ofa_deploy, walk) -> None:
    folder = walk[0]
    for command in (("show", "jetson_nano"), ("show", "jetson_nano", "jetson_nano")):
        lines = ofa_deploy("lut", *command, cwd=folder).stdout.splitlines()
        assert SHOUT in lines[0], command
        assert SHOUT in lines[-1] + lines[-2], command
    assert json.loads((folder / ".ofa/tables/jetson_nano-fp16.json").read_text())["condition"]["simulated"] is True
    assert json.loads(ofa_deploy("lut", "show", "jetson_nano", "--json", cwd=folder).stdout)["condition"]["simulated"]


def test_a_difference_says_simulated(ofa_deploy, walk) -> None:
    both = ("lut", "diff", "jetson_nano", "jetson_nano")
    assert ofa_deploy(*both, cwd=walk[0]).stdout.startswith(SHOUT)
    assert json.loads(ofa_deploy(*both, "--json", cwd=walk[0]).stdout)["simulated"] is True


def test_an_exported_table_stays_simulated(ofa_deploy, walk) -> None:
    folder, space = walk[0], load_space("fashion_28")
    assert SHOUT in ofa_deploy("lut", "export", "jetson_nano", "-o", "t.csv", cwd=folder).stdout
    lines = (folder / "t.csv").read_text().splitlines()
    assert len(lines) > 50
    assert all(line.startswith("SIMULATED-jetson_nano,") for line in lines[1:])
    assert read_csv(folder / "t.csv", "copy", space).simulated
    (folder / "real.csv").write_text("\n".join(lines).replace("SIMULATED-", ""))
    assert not read_csv(folder / "real.csv", "copy", space).simulated


def test_profile_audit_search_and_predict_say_simulated(ofa_deploy, walk, bundle) -> None:
    commands = (
        ("profile", *NANO),
        ("audit", *NANO, "--networks", "5"),
        ("search", *NANO, "--max-ms", "2"),
        ("predict", *NANO, str(bundle / "arch.json")),
    )
    for command in commands:
        assert ofa_deploy(*command, cwd=walk[0]).stdout.startswith(SHOUT), command
        answer = json.loads(ofa_deploy(*command, "--json", cwd=walk[0]).stdout)
        assert (answer[0] if isinstance(answer, list) else answer)["simulated"] is True, command
    for name in ("audit.md", "audit.html"):
        assert SHOUT in (walk[0] / ".ofa/audits/jetson_nano" / name).read_text()


def test_a_simulated_device_says_nothing_of_a_real_one(ofa_deploy, walk, bundle) -> None:
    done = ofa_deploy("predict", "--target", "local", str(bundle / "arch.json"), cwd=walk[0])
    assert done.returncode == 2
    assert "was never measured on local" in done.stderr
