"""Every accuracy that a command prints carries its interval and count."""

import pytest

from ofa_deploy.cli.archs import Listed, _line, _lines
from ofa_deploy.cli.deploying import summary
from ofa_deploy.cli.finetune_command import tuned_text
from ofa_deploy.cli.pipelines import _print
from ofa_deploy.cli.ranking_audit import ranking_text
from ofa_deploy.documents.ranking_document import Ranking
from ofa_deploy.documents.report_document import Report
from ofa_deploy.pipeline.outcome import Outcome, _changes
from ofa_deploy.report.ci_summary import render_summary
from ofa_deploy.store.views import Evaluation, KnownArch
from tests.report.test_report import REPORT

SHOWN = "90.3 % ±3.5 (n 360)"
BUNDLE = {**REPORT, "bundle": "bundles/bench-ms2", "folder": "bench-ms2"}


@pytest.fixture
def report():
    latency = {**REPORT["latency"], "session_std": 0.01, "measured_ms": {"p50": 1.8, "se": 0.001}}
    return {**BUNDLE, "latency": latency, "subnet": {**REPORT["subnet"], "memory_mb": 1.5}}


def test_extract_says_what_is_counted_and_what_is_expected(report, tmp_path):
    assert f"accuracy: {SHOWN} on the test split, expected 91.1 % ±1.4" in summary(report, tmp_path)


def test_a_pipelines_table_fits_a_terminal(report, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _print(Outcome("ci", tmp_path, reports=[report]))
    table = capsys.readouterr().out
    assert SHOWN in table
    assert "…" not in table
    assert all(
        heading in table for heading in ("target", "budget", "predicted", "measured", "error", "fits", "accuracy")
    )
    _print(Outcome("ci", tmp_path, reports=[{**report, "target": {**report["target"], "simulated": True}}]))
    assert "…" not in capsys.readouterr().out


def test_a_pipelines_summary_and_its_changes(report, tmp_path):
    earlier = {**report, "accuracy": {**report["accuracy"], "measured": 0.9, "n": 360}}
    change = _changes(Report.read(report), Report.read(earlier))
    outcome = Outcome("ci", tmp_path, reports=[{**report, "baseline": change.to_json()}])
    text = render_summary(outcome.summary)
    assert f"| {SHOWN} |" in text
    assert "+0.34 points ±4.4" in text


def test_architectures_and_fine_tuning():
    of = {"supernet": "ab" * 32, "key": "c" * 64, "arch": {}, "weights": "", "role": "", "created_at": ""}
    found = Evaluation(split="valid", state="one-shot", accuracy=0.9034, n=360, **of)
    facts = {"key": "c" * 64, "arch": {}, "network": "d" * 64, "macs": 1_000_000, "params": 5000}
    known = KnownArch(**facts, space="tiny_16", evaluations=(found,))
    assert f"{SHOWN} valid, one-shot" in _line(Listed.of(known, None), False)
    assert "not evaluated" in _line(Listed(known, None), False)
    (line,) = _lines(known)
    assert line.startswith(f"accuracy {SHOWN}  valid, one-shot, supernet ")
    both = {"valid": 0.9034, "test": 1.0}
    answer = {
        "before": both,
        "after": both,
        "state": "fine-tuned",
        "images": {"valid": 360, "test": 180},
        "supernet": "x",
    }
    assert f"inherited {SHOWN}, fine-tuned {SHOWN}" in tuned_text(answer)
    assert "fine-tuned 100.0 % −2.1 (n 180)" in tuned_text(answer)


def test_a_kendall_tau_of_zero_is_better_than_a_negative_one():
    scores = {name: {"tau": tau, "low": None} for name, tau in (("worse", -0.5), ("none", 0.0), ("equal", None))}
    gap = {"mean": 0.0, "least": 0.0, "most": 0.0}
    text = ranking_text(Ranking.read({"scores": scores, "networks": 3, "epochs": 1, "gap": gap}))
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["none", "worse", "equal"]
