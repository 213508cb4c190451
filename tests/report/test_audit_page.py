import copy
import re

import pytest
from test_report import EVIL, Page, everywhere, leaves, replaced

from ofa_deploy import report as pages
from ofa_deploy.documents.audit_document import Audit

STATISTICS = {
    "n_fit": 10,
    "n_heldout": 3,
    "mape": 0.0421,
    "bias": -0.012,
    "spearman": 0.9876,
    "kendall": 0.9,
    "within_5": 0.6,
    "within_10": 0.9,
    "coverage_95": 0.95,
    "repeatability": 0.0234,
}
AUDIT = {
    "schema": 1,
    "target": "bench",
    "condition": {
        "runtime": "onnxruntime",
        "runtime_version": "1.20",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "batch": 1,
        "threads": 2,
        "simulated": False,
    },
    "facts": {"cpu": "a processor"},
    "space": "tiny_16",
    "resolutions": [16, 20],
    "statistic": "p90",
    "measured_at": "2026-02-03T04:05:06Z",
    "status": "usable",
    **STATISTICS,
    "table_only": {**STATISTICS, "n_fit": 0, "mape": 0.5},
    "verdict": "usable: predictions are within 10 %; mean error 4.2 %",
    "command": "ofa-deploy audit --target bench --statistic p90",
    "networks": [
        {
            "key": name * 64,
            "role": "audit",
            "predicted_ms": predicted,
            "std_ms": 0.05,
            "table_ms": 3.0,
            "table_std_ms": 0.2,
            "measured_ms": 2.0,
            "halves_ms": [2.0, 2.01],
            "flags": flags,
        }
        for name, predicted, flags in (("a", 2.02, []), ("b", 1.8, ["noisy"]), ("c", 2.06, []))
    ],
}


def render_audit_html(audit):
    return pages.render_audit_html(Audit.read(audit))


def render_audit_markdown(audit):
    return pages.render_audit_markdown(Audit.read(audit))


def texts(audit):
    return Page(render_audit_html(audit)).shown, render_audit_markdown(audit).replace("\\", "")


def test_an_audit_says_what_a_practitioner_asks():
    for text in texts(AUDIT):
        first = text[text.lower().index("the predictions are usable") :][:700]
        for needed in (
            "predictions are within 10 %; mean error 4.2 %",
            "3 networks of tiny_16 at 16, 20 px",
            "it was fitted on 10 others",
            "bench · onnxruntime 1.20 · CPUExecutionProvider · fp32 · batch 1 · threads 2 · p90 · 2026-02-03T04:05:06Z",
            "ofa-deploy audit --target bench --statistic p90",
            "1 of 3 measurements are flagged",
        ):
            assert needed in first
        for needed in ("4.21 %", "50.00 %", "−1.2 %", "0.9876", "2.34 %", "a processor", "noisy"):
            assert needed in text


def test_the_worst_prediction_comes_first():
    for text in texts(AUDIT):
        listed = text[text.index("worst prediction first") :]
        assert listed.index("b" * 10) < listed.index("c" * 10) < listed.index("a" * 10)
        assert "−10.0 %" in listed


def test_errors_are_drawn_over_the_latency_that_was_measured():
    html = render_audit_html(AUDIT)
    assert html.count("measured p90 (ms)") == 2
    assert "predicted − measured (%)" in html
    assert "<title>audit bbbbbbbbbb: measured 2 ms, predicted 1.8 ms (−10.0 %)</title>" in html
    assert html.count('class="band"') == 6  # two bands and the legend, in two plots


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        ("trusted", "Trust the predictions"),
        ("not trusted", "Do not trust the predictions"),
        (None, "Not audited"),
        (["x"], "Not audited"),
    ],
)
def test_the_headline_is_the_verdict(status, headline):
    html, markdown = texts({**AUDIT, "status": status})
    assert headline in html
    assert headline.lower() in markdown


def test_without_a_table_there_is_no_sum_of_blocks():
    audit = copy.deepcopy(AUDIT)
    audit["table_only"] = None
    for network in audit["networks"]:
        network["table_ms"] = network["table_std_ms"] = None
    for text in texts(audit):
        assert "4.21 %" in text
        assert "50.00 %" not in text


def test_simulated_is_shouted():
    for text in texts(replaced(AUDIT, ("condition", "simulated"), True)):
        assert "SIMULATED" in text
    assert not any("SIMULATED" in text for text in texts(AUDIT))


@pytest.mark.parametrize("path", list(leaves(AUDIT)), ids=lambda path: ".".join(map(str, path)))
def test_any_part_may_be_null_or_of_another_kind(path):
    for text in texts(replaced(AUDIT, path, None)):
        assert not re.search(r"\b(None|null|nan|NaN)\b", text)
    for wrong in ("text", [], {}, True, 1e999, [1, "a"]):
        texts(replaced(AUDIT, path, wrong))


def test_nothing_at_all_reads_well():
    for text in texts({}):
        assert "not audited" in text.lower()


def test_nothing_from_json_becomes_markup():
    audit = everywhere(AUDIT, EVIL)
    page = Page(render_audit_html(audit))
    assert set(page.tags) <= set(Page(render_audit_html(AUDIT)).tags)
    assert page.addresses == []
    assert EVIL.split()[0] in page.shown
    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", render_audit_markdown(audit))
    assert not re.search(r"(?<!\\)[<\[`]", outside)


def test_ids_are_unique_and_nothing_is_loaded():
    html = render_audit_html(AUDIT)
    found = re.findall(r' id="([^"]*)"', html)
    assert len(found) == len(set(found))
    assert not re.search(r"@import|url\((?!#)|https?:", html)


def test_an_audit_tells_the_level_that_it_was_judged_at_and_both_biases():
    level = {"factor": 1.36, "low": 1.3, "high": 1.42, "reasons": ["load 4.2 on 2 cores"]}
    answer = {**AUDIT, "level": level, "as_profiled": {"bias": -0.25, "mape": 0.25}, "bias": 0.01}
    for text in texts(answer):
        assert "1.36 times as slow as when it was profiled (1.30 to 1.42)" in text
        assert "load 4.2 on 2 cores" in text
        assert "off by +1.0 % on average, at that of the profile by -25.0 %" in text
    assert "times as slow" not in render_audit_markdown({**answer, "level": None})
