"""The workflow for GitHub Actions: its schema, and its own steps run as a runner would, on a small pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "models.yml"
SMALL = """name: small
stages:
  - {stage: import, supernet: digits}
  - {stage: profile, target: jetson_nano, networks: 4}
  - {stage: extract, target: jetson_nano, max_ms: 1.3}
gates: [latency.p50 <= budget, baseline.latency <= 1.0]
"""


def steps() -> dict[str, str]:
    """What the named steps run."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return {step["name"]: step["run"] for step in jobs["models"]["steps"] if "run" in step}


def test_it_is_a_workflow() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is in the extra [test]")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", steps())
def test_every_script_parses(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=steps()[name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_its_steps_make_bundles_and_compare_them_with_the_last_ones(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "ofa-deploy"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ofa_deploy "$@"\n')
    command.chmod(0o755)
    (tmp_path / "small.yaml").write_text(SMALL)
    summary = tmp_path / "step-summary.md"
    path = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    given = {**os.environ, **path, "PIPELINE": "small.yaml", "GITHUB_STEP_SUMMARY": str(summary)}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        shell = ["bash", "-e", "-o", "pipefail", "-c", steps()[name]]
        return subprocess.run(shell, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

    first = run("models")
    assert first.returncode == 0, first.stderr
    bundles = tmp_path / ".ofa" / "bundles" / "small"
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "bundles").symlink_to(bundles)
    again = run("models")
    assert again.returncode == 0, again.stderr
    run("summary")
    assert "# small: passed" in summary.read_text()
    assert "## Since the last release" in summary.read_text()
    found = json.loads((bundles / "summary.json").read_text())
    assert {unit["status"] for unit in found["units"]} == {"skipped"}
    assert [gate["passed"] for gate in found["gates"]] == [True, True]
