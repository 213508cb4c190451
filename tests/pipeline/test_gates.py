"""Gates over reports, and what a run's summaries say of them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ofa_deploy.errors import DeviceUnavailable, GateFailed, InfeasibleBudget
from ofa_deploy.pipeline.gates import METRICS, judge, parse_check
from ofa_deploy.pipeline.outcome import Outcome, Unit
from ofa_deploy.report.ci_summary import render_junit, render_summary

REPORT = {
    "folder": "local-ms2",
    "target": {"name": "local", "simulated": False},
    "budget": {"max_ms": 2.0},
    "latency": {
        "measured_ms": {"p50": 1.5, "p90": 2.5, "p99": 3.0, "se": 0.01},
        "predicted_ms": 1.6, "error_pct": -4.0, "session_std": 0.0,
    },
    "accuracy": {"measured": 0.9, "n": 500, "drop": 0.001},
    "parity": {"max_abs": 1e-6, "top1_agreement": 1.0},
    "audit": {"within_5": 0.9, "within_10": 1.0, "mape": 0.02, "bias": 0.01, "spearman": 0.99, "coverage_95": 1.0},
    "subnet": {"key": "abc", "params": 1000, "macs": 5000, "memory_mb": 2.0},
    "size_bytes": 4_000_000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        ("latency.p50 <= 2", True),
        ("latency.p50 < 1.5", False),
        ("latency.p90 <= budget", False),
        ("latency.p50 <= budget", True),
        ("latency.error <= 0.05", True),
        ("latency.error <= 0.03", False),
        ("accuracy.drop <= 0.005", True),
        ("audit.within_5 >= 0.95", False),
        ("size_mb <= 4.0", True),
        ("size_mb > 4", False),
        ("baseline.latency <= 1.05", None),
    ],
)
def test_a_gate_passes_or_not(check: str, passed: bool | None) -> None:
    assert judge(check, "local-ms2", REPORT).passed is passed


def test_a_misspelt_metric_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"no 'acuracy.drop' to check; there are .*; did you mean 'accuracy.drop'\?"):
        parse_check("acuracy.drop <= 2")
    with pytest.raises(ValueError, match=r"no 'colour' to check; there are latency.p50, .*baseline.size$"):
        parse_check("colour <= 2")


def test_what_was_not_measured_does_not_pass() -> None:
    for metric in METRICS:
        verdict = judge(f"{metric} >= 0", "x", {"budget": {"max_ms": None}})
        assert verdict.passed is (None if metric.startswith("baseline.") else False), metric
    assert judge("latency.p50 <= budget", "x", {**REPORT, "budget": {"max_ms": None}}).passed is False


def outcome(folder: Path, **changed: object) -> Outcome:
    made = Outcome("ci", folder, reports=[{**REPORT, **changed}])
    made.add(Unit("profile local", "local", "done", "", 1.5))
    return made


def test_a_release_is_compared_with_the_one_before(tmp_path: Path) -> None:
    import json

    (tmp_path / "old" / "local-ms2").mkdir(parents=True)
    old = {**REPORT, "latency": {**REPORT["latency"], "measured_ms": {"p50": 1.2, "se": 0.01}}, "size_bytes": 3_200_000}
    (tmp_path / "old" / "local-ms2" / "report.json").write_text(json.dumps(old))
    made = outcome(tmp_path)
    made.compare_with(tmp_path / "old")
    found = made.reports[0]["baseline"]
    assert (round(found["latency"], 6), found["accuracy"], found["size"], found["slower"]) == (1.25, 0.0, 1.25, True)
    assert judge("baseline.latency <= 1.1", "x", made.reports[0]).passed is False
    assert "SLOWER" in render_summary(made.summary)
    made.compare_with(tmp_path / "nowhere")
    assert made.reports[0]["baseline"] is None


def test_a_failed_unit_blocks_its_target_and_decides_the_exit_code(tmp_path: Path) -> None:
    made = outcome(tmp_path)
    error = DeviceUnavailable("nobody there")
    made.add(Unit("profile nano", "nano", "failed", str(error), 0.1, error))
    assert made.blocked("nano") == "after: profile nano"
    assert made.blocked("local") is None
    assert made.error is error
    made.add(Unit("extract x", "x", "failed", "none fits", 0.1, InfeasibleBudget("none fits")))
    assert isinstance(made.error, DeviceUnavailable)
    assert "1 more failed" in str(made.error)


def test_a_failed_training_blocks_everything(tmp_path: Path) -> None:
    made = Outcome("ci", tmp_path)
    made.add(Unit("train", None, "failed", "no images", 0.1, GateFailed("no images")))
    assert made.blocked("local") == "after: train"


def test_summaries_tell_the_same(tmp_path: Path) -> None:
    made = outcome(tmp_path)
    made.add(Unit("profile nano", "nano", "not run", "after: import"))
    made.verdicts = [
        judge(check, "local-ms2", REPORT) for check in ("size_mb <= 8", "size_mb <= 1", "baseline.size <= 1")
    ]
    assert isinstance(made.error, GateFailed)
    assert "size_mb is 4, not <= 1" in str(made.error)
    made.write()
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get(key) for key in ("tests", "failures", "skipped")] == ["5", "1", "2"]
    assert len(suite.findall("testcase/failure")) == 1
    text = (tmp_path / "summary.md").read_text()
    assert "# ci: FAILED" in text
    assert "| `local-ms2` | `size_mb <= 1` | FAILED |" in text
    passed = made.summary.model_copy(update={"error": None, "passed": True, "gates": []})
    assert 'failures="0"' in render_junit(passed)
