"""Audits are kept, found again by the reports of later extractions, and checked with them."""

import contextlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_extract import SPACE, TARGET, MadeUpFleet, extract, workspace  # noqa: F401

from ofa_deploy.deploy import bundling
from ofa_deploy.deploy.audits import audit_command, keep_audit, newest_audit
from ofa_deploy.deploy.notes import _table_notes
from ofa_deploy.deploy.subject import random_subject
from ofa_deploy.export import verify_bundle
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.profiling import profile
from ofa_deploy.search import Constraints
from ofa_deploy.space import PRESETS


def build_bundle(*args):
    """Write a bundle; its report as JSON."""
    return bundling.build_bundle(*args).to_json()


@pytest.fixture
def fleet(workspace):  # noqa: F811
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    return fleet


@pytest.fixture
def extraction(fleet, workspace):  # noqa: F811
    return extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2))


@pytest.fixture
def answer(fleet, workspace, extraction):  # noqa: F811
    return {**audit(fleet, workspace, TARGET, SPACE, networks=8).to_json(), "command": "ofa-deploy audit"}


def keep(workspace, answer):  # noqa: F811
    folder = workspace.audits / "made-up"
    folder.mkdir(exist_ok=True)
    keep_audit(workspace, answer, folder)
    return folder


def test_an_audit_is_kept_and_enters_the_next_report(fleet, workspace, answer, tmp_path):  # noqa: F811
    folder = keep(workspace, answer)
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json", "audit.md"]
    assert json.loads((folder / "audit.json").read_text()) == answer
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.2))
    report = build_bundle(result, tmp_path / "bundle", "a command", newest_audit(workspace, result))
    assert report["audit"]["mape"] == answer["mape"]
    assert not {"networks", "facts"} & report["audit"].keys()
    audited, others = (
        {network["key"] for network in report["networks"] if (network["role"] == "audit") is wanted}
        for wanted in (True, False)
    )
    assert audited == {network["key"] for network in answer["networks"]}
    assert not audited & {n["key"] for n in report["networks"] if n["role"] == "evidence"}
    assert len(others) >= 6
    assert verify_bundle(tmp_path / "bundle") == []
    assert "8 held-out networks" in (tmp_path / "bundle" / "report.html").read_text()


def test_without_an_audit_the_report_says_how_to_get_one(extraction, workspace, tmp_path):  # noqa: F811
    assert newest_audit(workspace, extraction) is None
    report = build_bundle(extraction, tmp_path / "bundle", "a command")
    assert report["audit"] is None
    assert report["audit_command"] == "ofa-deploy audit --target made-up --statistic p50 --precision fp32"
    assert report["audit_command"] in (tmp_path / "bundle" / "report.md").read_text()
    assert verify_bundle(tmp_path / "bundle") == []


@pytest.mark.parametrize(
    "other",
    [
        {"target": "another"},
        {"space": "another"},
        {"statistic": "p99"},
        {"resolutions": [320]},
        {"condition": {"runtime": "another"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_an_audit_of_something_else_does_not_count_and_hides_none(workspace, extraction, answer, other):  # noqa: F811
    keep(workspace, {**answer, **other})
    assert newest_audit(workspace, extraction) is None
    keep(workspace, answer)
    keep(workspace, {**answer, **other})
    assert newest_audit(workspace, extraction).to_json() == answer


def test_the_newest_audit_counts(workspace, extraction, answer):  # noqa: F811
    for mape in (0.1, 0.2):
        keep(workspace, {**answer, "mape": mape})
    assert newest_audit(workspace, extraction).mape == 0.2


def test_the_command_names_the_space_where_it_has_a_name():
    preset = PRESETS["tiny_16"].with_resolutions((16,))
    options = {"resolution": [16, 20], "seed": 3, "cap-s": None}
    words = "ofa-deploy audit --target made-up --space tiny_16 --statistic p90 --resolution 16 --resolution 20 --seed 3"
    assert audit_command(TARGET, preset, "p90", options) == words
    changed = replace(preset, head_width=64)
    assert "--space" not in audit_command(TARGET, changed, "p50")
    assert "--space 'a b.yaml'" in audit_command(TARGET, changed, "p50", {"space": "a b.yaml"})


def test_residuals_assign_the_error_of_the_prediction_to_blocks(extraction, tmp_path):
    chosen = extraction.chosen
    ms = 1.1 * chosen.predicted_ms
    record = chosen.record.model_copy(update={"p50": ms, "p90": ms, "p99": ms, "timings": [[ms] * 6] * 12})
    extraction.chosen = replace(chosen, records=(record,))
    report = build_bundle(extraction, tmp_path / "bundle", "a command")
    residuals = [block["residual_ms"] for block in report["blocks"]]
    assert 0 < sum(residuals) < record.p50 - chosen.predicted_ms, "the rest is noise"
    assert verify_bundle(tmp_path / "bundle") == []


def test_an_old_table_and_another_runtime_are_warned_of(extraction, tmp_path):
    chosen = extraction.chosen
    changed = {
        "measured_at": "2026-03-05T00:00:00Z",  # the table is of the first of January
        "condition": {**chosen.record.condition, "runtime_version": "2"},
    }
    extraction.chosen = replace(chosen, records=(chosen.record.model_copy(update=changed),))
    notes = " ".join(build_bundle(extraction, tmp_path / "bundle", "a command")["notes"])
    assert "measured 63 days before this subnet" in notes
    assert "older than its runtime (runtime_version was 1, is 2)" in notes
    assert "ofa-deploy profile --target made-up --precision fp32 --refresh" in notes
    fresh = {"measured_at": "2026-01-30T00:00:00Z"}
    extraction.chosen = replace(chosen, records=(chosen.record.model_copy(update=fresh),))
    assert "days" not in " ".join(build_bundle(extraction, tmp_path / "bundle", "a command")["notes"])


def test_flagged_rows_are_counted_and_marked(extraction, tmp_path):
    rows = extraction.chosen.predictor.table.rows
    first = extraction.chosen.record.ops[0]
    rows[first] = replace(rows[first], flags=("noisy",))
    report = build_bundle(extraction, tmp_path / "bundle", "a command")
    used = len(set(extraction.chosen.record.ops))
    assert f"1 of the {used} table rows used are flagged (noisy): see the blocks." in report["notes"]
    assert report["blocks"][0]["flags"] == ["noisy"]


def test_a_prediction_without_a_table_says_what_it_rests_on(extraction):
    table = replace(extraction.chosen.predictor.table, rows={})
    predictor = SimpleNamespace(table=table, evidence=["a", "b", "c"])
    (note,) = _table_notes(extraction, replace(extraction.chosen, predictor=predictor))
    assert "No block was measured on this device" in note
    assert "3 whole networks and other devices' tables" in note


def test_the_command_keeps_what_it_prints_and_can_be_repeated(ofa_deploy, tmp_path, monkeypatch):
    def opened(workspace):  # noqa: F811
        return contextlib.nullcontext(MadeUpFleet(workspace, 1.0))

    monkeypatch.setattr("ofa_deploy.fleet.Fleet.open", opened)
    (tmp_path / "narrow.yaml").write_text("name: narrow\nbase: tiny_16\nresolutions: [16]\nwidths: [1.0]\n")
    assert ofa_deploy("profile", "--space", "narrow.yaml", "--json", cwd=tmp_path).returncode == 0
    done = ofa_deploy("audit", "--space", "narrow.yaml", "--networks", "5", "--json", "-o", "out", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer == json.loads((tmp_path / "out" / "audit.json").read_text())
    assert answer["facts"] == {"cpu": "made-up"}
    assert (answer["n_heldout"], answer["statistic"], answer["table_only"]["n_fit"]) == (5, "p50", 0)
    again = ofa_deploy(*shlex.split(answer["command"])[1:], cwd=tmp_path)
    assert again.returncode == 0
    folder = tmp_path / ".ofa" / "audits" / "local"
    assert "sum of blocks" in again.stdout
    assert str(folder / "audit.html") in again.stdout
    assert "narrow at 16 px" in (folder / "audit.md").read_text()


def test_a_folder_that_cannot_be_made_is_said_before_measuring(ofa_deploy, tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = ofa_deploy("audit", "--space", "tiny_16", "-o", "file", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "name another with -o" in done.stderr
