import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ofa_deploy import report as pages
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.report_document import Report
from ofa_deploy.report.comparison import Entry
from ofa_deploy.report.figures import band
from ofa_deploy.report.text import accuracy

KEY = "c0ffee" * 10 + "beef"
REPORT = {
    "schema": 1,
    "target": {
        "name": "bench",
        "runtime": "onnxruntime 1.20",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "batch": 1,
        "threads": 1,
        "power_mode": "performance",
        "simulated": False,
        "facts": {"cpu": "a processor", "cores": 2},
    },
    "budget": {"max_ms": 2.0, "statistic": "p50", "confidence": 0.95},
    "constraints": {"max_macs": 5_000_000, "max_params": None, "max_memory_mb": 2.5, "max_energy_mj": None},
    "subnet": {
        "key": KEY,
        "arch": {
            "space": "tiny_16",
            "resolution": 16,
            "width": 1.0,
            "depths": [1, 2],
            "kernels": [3],
            "expands": [4.0],
        },
        "macs": 4_321_000,
        "params": 87_654,
        "memory_mb": 1.25,
    },
    "accuracy": {
        "predicted": 0.912,
        "predictor_error": {"rmse": 0.005, "n_heldout": 60, "supernet": "ab" * 32},
        "valid": 0.9,
        "valid_n": 180,
        "posterior": 0.911,
        "low": 0.897,
        "high": 0.9235,
        "measured": 0.9034,
        "dataset": "digits",
        "split": "test",
        "n": 360,
    },
    "latency": {
        "predicted_ms": 1.764,
        "std_ms": 0.04,
        "upper_ms": 1.83,
        "table_ms": 1.5,
        "measured_ms": {"p50": 1.8, "p90": 1.9, "p99": 2.1, "n": 72, "cov": 0.03},
        "interval_ms": [1.71, 1.88],
        "error_pct": -2.0,
        "fits": True,
    },
    "parity": {"max_abs": 2.5e-6, "top1_agreement": 1.0},
    "verdict": {"status": "fits", "text": "measured p50 1.8 ms ≤ budget 2 ms"},
    "audit": {
        "n_fit": 10,
        "n_heldout": 40,
        "mape": 0.019,
        "repeatability": 0.018,
        "measured_at": "2026-02-03T04:05:06Z",
        "verdict": "trust it: predictions are as good as measurements repeat themselves; mean error 1.9 %",
    },
    "audit_command": "ofa-deploy audit --target bench",
    "networks": [
        {
            "key": "a" * 64,
            "role": "evidence",
            "predicted_ms": 1.0,
            "std_ms": 0.05,
            "table_ms": 0.9,
            "measured_ms": 1.02,
        },
        {"key": "b" * 64, "role": "evidence", "predicted_ms": 3.0, "std_ms": 0.05, "table_ms": 2.7, "measured_ms": 3.1},
        {"key": "9" * 64, "role": "audit", "predicted_ms": 2.2, "std_ms": 0.1, "table_ms": None, "measured_ms": 2.0},
        {"key": KEY, "role": "chosen", "predicted_ms": 1.764, "std_ms": 0.04, "table_ms": 1.5, "measured_ms": 1.8},
    ],
    "finalists": [
        {
            "key": KEY,
            "predicted_ms": 1.764,
            "std_ms": 0.04,
            "upper_ms": 1.83,
            "table_ms": 1.5,
            "measured_ms": 1.8,
            "valid_accuracy": 0.91,
        },
        {"key": "d" * 64, "predicted_ms": 1.6, "std_ms": 0.04, "upper_ms": 1.7, "table_ms": 1.4, "measured_ms": 1.58},
    ],
    "front": [
        {"key": "e" * 64, "latency_ms": 1.0, "upper_ms": 1.1, "accuracy": 0.88},
        {"key": KEY, "latency_ms": 1.764, "upper_ms": 1.83, "accuracy": 0.912},
        {"key": "f" * 64, "latency_ms": 2.5, "upper_ms": 2.6, "accuracy": 0.92},
    ],
    "blocks": [
        {
            "name": "stem",
            "op": "stem-16x16",
            "table_ms": 0.5,
            "posterior_ms": 0.6,
            "residual_ms": 0.0124,
            "share": 0.34,
            "flags": ["unsettled"],
        },
        {
            "name": "head",
            "op": "head-4x4",
            "table_ms": 1.0,
            "posterior_ms": 1.164,
            "residual_ms": -0.03,
            "share": 0.66,
            "flags": [],
        },
    ],
    "notes": ["The table is a week old."],
    "command": "ofa-deploy extract --target bench --max-ms 2",
    "size_bytes": 351_234,
    "provenance": {"supernet_sha256": "ab" * 32, "measured_at": "2026-03-04T05:06:07Z"},
}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> [x](javascript:alert(3)) `|` *"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Fails on tags that are not closed in order; collects tags, addresses and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.addresses, self.text, self.attributes = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def shown(self):
        return " ".join(self.text)


def leaves(tree, path=()):
    """The path of every value of a JSON document that is not an object or a list, and of every object and list."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))


def replaced(tree, path, value):
    changed = copy.deepcopy(tree)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def everywhere(tree, value):
    """The document with every text replaced."""
    if isinstance(tree, dict):
        return {key: everywhere(item, value) for key, item in tree.items()}
    if isinstance(tree, list):
        return [everywhere(item, value) for item in tree]
    return value if isinstance(tree, str) else tree


def render_html(report):
    return pages.render_html(Report.read(report))


def render_markdown(report):
    return pages.render_markdown(Report.read(report))


def render_comparison(reports, title):
    """Of reports as JSON, each with the link that is under its ``links``."""
    return pages.render_comparison(
        [Entry(Report.read(one), one.get("links", {}).get("report")) for one in reports], title
    )


def all_pages(report):
    return [render_html(report), render_comparison([report, REPORT], "several")]


def test_the_verdict_comes_first_with_its_numbers():
    for text in (Page(render_html(REPORT)).shown, render_markdown(REPORT)):
        first = text[text.lower().index("fits the budget") :][:600]
        assert "measured p50 1.8 ms (95 %: 1.71 to 1.88) ≤ budget 2 ms (10.0 % below)" in first
        assert "predicted 1.764 ms, error −2.0 %" in first
        assert "accuracy 90.3 % ±3.5 (n 360), expected 91.1 % ±1.4" in first
        assert "audited with 40 held-out networks on 2026-02-03 – trust it" in first
        assert "bench · onnxruntime 1.20 · CPUExecutionProvider · fp32 · batch 1 · threads 1 · p50 · 2026" in first
        assert "ofa-deploy extract --target bench --max-ms 2" in first


@pytest.mark.parametrize("interval", [None, [], [1.7], [1.7, None], ["a", 2], 5])
def test_a_measurement_without_a_confidence_interval(interval):
    report = replaced(REPORT, ("latency", "interval_ms"), interval)
    for text in (Page(render_html(report)).shown, render_markdown(report)):
        assert "measured p50 1.8 ms ≤ budget 2 ms" in text


def test_without_an_audit_the_report_names_the_command():
    report = replaced(REPORT, ("audit",), None)
    for text in (Page(render_html(report)).shown, render_markdown(report)):
        assert "predictions not audited; see how far to trust them with: ofa-deploy audit --target bench" in text


def test_blocks_come_with_the_largest_difference_first_and_keep_their_place():
    report = copy.deepcopy(REPORT)
    for text in (Page(render_html(report)).shown, render_markdown(report)):
        assert text.index("head-4x4") < text.index("stem-16x16")
        assert "+0.134 ms" in text  # 1.164 − 0.03 − 1.0
        assert "+0.112 ms" in text  # 0.6 + 0.0124 − 0.5
    assert re.search(r"\| 2 \| head \|.*\| −0.030 ms \| \+0.134 ms \| 66.0 % \|", render_markdown(report))
    report["blocks"][0]["residual_ms"] = -0.3
    assert render_markdown(report).index("stem-16x16") < render_markdown(report).index("head-4x4")


def test_blocks_that_no_table_holds_show_the_model_alone():
    report = copy.deepcopy(REPORT)
    for block in report["blocks"]:
        block["table_ms"] = None
    shown = Page(render_html(report)).shown
    assert "table –, posterior 1.164 ms, residual −0.030 ms" in shown
    assert "against its table" not in shown


def test_a_report_holds_what_a_practitioner_asks():
    for text in (Page(render_html(REPORT)).shown, render_markdown(REPORT).replace("\\", "")):
        for needed in (
            "onnxruntime 1.20",
            "CPUExecutionProvider",
            "a processor",
            "90.3 % ±3.5 (n 360)",
            "90.0 % ±5.3 (n 180)",
            "from the prediction and the validation",
            "predictor's error 0.50 points on 60 held-out networks",
            "4.32 M",
            "87.7 k",
            "351 kB",
            "2.5e−6",
            "The table is a week old.",
            "ofa-deploy extract --target bench --max-ms 2",
            "stem-16x16",
            "1.164 ms",
            KEY,
        ):
            assert needed in text


@pytest.mark.parametrize(
    ("drop", "words"), [(0.001, "0.10 points lost"), (-0.001, "0.10 points gained"), (0.0, "none")]
)
def test_what_verification_measured_is_shown(drop, words):
    report = copy.deepcopy(REPORT)
    report["accuracy"] |= {"torch": 0.9034 + drop, "drop": drop}
    report["parity"]["psnr_db"] = 118.4
    for text in (render_html(report), render_markdown(report)):
        assert all(
            part in text for part in (f"{90.34 + 100 * drop:.1f} % ±3.", f"{words} in the fp32 file", "PSNR 118 dB")
        )
        assert "same class for 100.0 %" in text
    assert "Torch's accuracy" not in render_markdown(REPORT), "nothing is shown that was not measured"


def test_plots_have_bands_a_budget_the_chosen_point_and_tooltips():
    html = render_html(REPORT)
    assert html.count('class="band"') == 5  # two of latencies, one of accuracies, and the legends
    assert "budget 2 ms" in html
    assert 'class="chosen"' in html
    assert "<title>chosen c0ffeec0ff: measured 1.8 ms, predicted 1.764 ms (−2.0 %)</title>" in html
    assert "<title>audit 9999999999: measured 2 ms, predicted 2.2 ms (+10.0 %)</title>" in html
    for label in ("measured p50 (ms)", "predicted (ms)", "latency (ms)", "predicted accuracy (%)"):
        assert label in html


def test_without_accuracies_there_is_no_front_but_the_errors_of_predictions():
    html = render_html(replaced(REPORT, ("front",), []))
    assert "predicted accuracy (%)" not in html
    assert "predicted − measured (%)" in html
    assert "predicted − measured (%)" not in render_html(REPORT)


def test_an_audit_that_warns_is_marked():
    warned = replaced(REPORT, ("audit", "status"), "not trusted")
    assert "⚠ predictions audited" in Page(render_html(warned)).shown
    assert "⚠ predictions audited" not in Page(render_html(REPORT)).shown


def test_over_budget_is_said():
    over = replaced(replaced(REPORT, ("verdict", "status"), "over"), ("latency", "measured_ms", "p50"), 2.5)
    over["latency"]["interval_ms"] = None
    assert "measured p50 2.5 ms > budget 2 ms (25.0 % above)" in Page(render_html(over)).shown
    assert "over the budget" in render_markdown(over)


@pytest.mark.parametrize("path", list(leaves(REPORT)), ids=lambda path: ".".join(map(str, path)))
def test_any_part_may_be_null(path):
    report = replaced(REPORT, path, None)
    for text in (*(Page(html).shown for html in all_pages(report)), render_markdown(report)):
        shown = text.replace(json.dumps(report["provenance"], indent=2, sort_keys=True), "")
        assert not re.search(r"\b(None|nan|NaN|undefined)\b", shown)
        assert path[0] == "provenance" or not re.search(r"\bnull\b", shown)


def test_nothing_but_null_reads_well():
    empty = dict.fromkeys(REPORT)
    for report in ({}, empty):
        for text in (Page(render_html(report)).shown, render_markdown(report)):
            assert "not measured" in text
            assert "None" not in text


def test_what_was_not_measured_says_so():
    report = replaced(REPORT, ("accuracy", "measured"), None)
    assert "accuracy not measured" in Page(render_html(report)).shown
    assert "accuracy not measured" in render_markdown(report)
    report = replaced(replaced(report, ("latency", "measured_ms"), None), ("latency", "fits"), None)
    report["verdict"] = {"status": "not measured", "text": None}
    assert "latency not measured; budget 2 ms" in Page(render_html(report)).shown


def test_a_budget_of_macs_alone():
    report = replaced(replaced(REPORT, ("budget", "max_ms"), None), ("latency", "fits"), None)
    report["verdict"] = {"status": "not measured", "text": "no latency budget was asked for"}
    shown = Page(render_html(report)).shown
    assert "No latency budget" in shown
    assert "measured p50 1.8 ms" in shown
    assert "5 M" in shown


def test_simulated_is_shouted_everywhere():
    report = replaced(REPORT, ("target", "simulated"), True)
    for text in (*all_pages(report), render_markdown(report)):
        assert "SIMULATED" in text
    for text in (*all_pages(REPORT), render_markdown(REPORT)):
        assert "SIMULATED" not in text


def test_nothing_from_json_becomes_markup():
    clean, report = all_pages(REPORT), everywhere(REPORT, EVIL)
    report["links"] = {"report": EVIL}
    report["target"]["facts"] = {EVIL: EVIL}
    for html, before in zip([*all_pages(report), render_comparison([REPORT], EVIL)], [*clean, clean[1]], strict=True):
        page = Page(html)
        assert "script" not in page.tags
        assert "img" not in page.tags
        assert set(page.tags) <= set(Page(before).tags) | {"a"}
        assert not [name for name in page.attributes if name.startswith("on")]
        assert EVIL.split()[0] in page.shown
    markdown = render_markdown(report)
    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", markdown)
    assert not re.search(r"(?<!\\)[<\[`]", outside)


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "https://example.org/",
        "//example.org",
        "/etc/passwd",
        "data:text/html,x",
        "\\\\host",
        "",
        7,
    ],
)
def test_a_comparison_links_to_neighbouring_files_only(address):
    report = {**REPORT, "links": {"report": address}}
    assert Page(render_comparison([report], "t")).addresses == []


def test_a_comparison_shows_every_report():
    faster = replaced(replaced(REPORT, ("budget", "max_ms"), 1.0), ("latency", "measured_ms", "p50"), 0.95)
    faster["links"], other = {"report": "a b/report.html"}, replaced(REPORT, ("target", "name"), "phone")
    page = Page(render_comparison([faster, other], "two budgets"))
    assert page.addresses == ["a%20b/report.html"]
    for needed in (
        "two budgets",
        "bench",
        "phone",
        "1 ms",
        "0.95 ms",
        "90.3 % ±3.5 (n 360)",
        "91.1 % ±1.4",
        "91.20 % ±0.98",
        "4.32 M",
        "fits",
    ):
        assert needed in page.shown
    assert page.tags.count("svg") == 1
    assert page.shown.count("front of 1, 2: ") == 3  # the same front is drawn once


def test_a_comparison_shows_how_sure_fronts_and_answers_are():
    html = render_comparison([REPORT], "one")
    plot = html[html.index("<svg") : html.index("</svg>")]
    assert plot.count('class="band"') == 1
    assert plot.count('class="spread"') == 1
    assert "front of 1: 1.764 ms, 91.20 % ±0.98" in plot
    assert "accuracy 90.3 % ±3.5 (n 360) (measured)" in plot
    heights = [float(y) for y in re.findall(r"[0-9.]+,([0-9.]+)", re.search(r'polygon points="([^"]+)"', plot)[1])]
    chosen = float(re.search(r'<path d="M[0-9.]+ ([0-9.]+)l7 7', plot)[1]) + 7
    assert heights[4] > chosen > heights[1], "the band includes what 360 images can differ"
    unknown = render_comparison([replaced(REPORT, ("accuracy", "predictor_error"), None)], "one")
    assert 'class="band"' not in unknown
    assert "front of 1: 1.764 ms, 91.20 %<" in unknown


def test_the_band_holds_what_is_measured_where_the_front_predicts():
    rng, n, repeats = np.random.default_rng(0), 500, 2000
    error = PredictorError(rmse=0.004, bias_after_std=0.006 * 3**0.5)
    outline = band([(1.0, 0.9), (2.0, 0.95)], error, n)
    assert [x for x, _ in outline] == [1.0, 2.0, 2.0, 1.0]
    for (_, top), (_, bottom), share in ((outline[0], outline[3], 0.9), (outline[1], outline[2], 0.95)):
        true = share + rng.normal(0, 0.006, repeats) + rng.normal(0, 0.004, repeats)
        inside = np.mean([bottom <= rng.binomial(n, rate) / n <= top for rate in true])
        assert 0.93 < inside < 0.97
    assert [y for _, y in band([(1.0, 0.9)], PredictorError(rmse=0.01))] == pytest.approx([0.9196, 0.8804], abs=1e-4)
    assert band([(1.0, 0.9)], PredictorError(what="a published predictor")) == []


@pytest.mark.parametrize(
    ("share", "n", "shown"),
    [
        (0.972, 500, "97.2 % ±1.8 (n 500)"),
        (0.972, 10000, "97.20 % ±0.34 (n 10,000)"),
        (1.0, 180, "100.0 % −2.1 (n 180)"),
        (0.0, 180, "0.0 % +2.1 (n 180)"),
        (0.5, 0, "50.00 %"),
        (None, 500, "not measured"),
        (3.0, 500, "300.00 %"),
    ],
)
def test_accuracies_carry_their_interval_and_count(share, n, shown):
    assert accuracy(share, n) == shown


def test_a_comparison_of_nothing_and_without_accuracies():
    assert "nothing to plot" in render_comparison([], "none")
    bare = {**REPORT, "accuracy": None, "front": None}
    assert "nothing to plot" in render_comparison([bare], "bare")


def test_pages_load_nothing_and_adapt():
    for html in all_pages(REPORT):
        page = Page(html)
        assert page.addresses == []
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not re.search(r"@import|url\((?!#)|https?:", html)
        assert "prefers-color-scheme: dark" in html
        assert 'name="viewport"' in html


def test_ids_are_unique_on_a_page():
    for html in all_pages(REPORT):
        found = re.findall(r' id="([^"]*)"', html)
        assert len(found) == len(set(found))


def test_the_same_report_gives_the_same_text():
    shuffled = json.loads(json.dumps(REPORT, sort_keys=True))
    shuffled["subnet"]["arch"] = REPORT["subnet"]["arch"]
    assert render_html(REPORT) == render_html(shuffled)
    assert render_markdown(REPORT) == render_markdown(shuffled)


@pytest.mark.parametrize(
    "values", [(1.8, 1.8, 1.8), (1e-5, 2e-5, 1e-5), (1e6, 2e6, 3e6), (0.0, 0.0, 0.0), (-1.0, 5.0, 2.0)]
)
def test_plots_survive_any_range(values):
    report = copy.deepcopy(REPORT)
    report["networks"] = [{"role": "evidence", "predicted_ms": v, "measured_ms": v, "key": "k"} for v in values]
    report["front"] = [{"latency_ms": v, "accuracy": 0.5} for v in values]
    for html in all_pages(report):
        Page(html)
        assert not re.search(r"\b(nan|inf)\b", html)


@pytest.mark.parametrize("wrong", ["text", [], {}, True, 1e999, [1, "a"]], ids=repr)
def test_a_value_of_another_kind_breaks_no_page(wrong):
    for path in leaves(REPORT):
        report = replaced(REPORT, path, wrong)
        for html in all_pages(report):
            Page(html)
        render_markdown(report)


def test_a_search_by_gradient_shows_its_course_and_what_guards_did() -> None:
    course = [
        {"step": step, "loss": 1 / step, "entropy": 0.9, "expected_ms": 20.0 / step, "excess": {"max_ms": 0.1}}
        for step in (10, 20, 30)
    ]
    acted = [{"guard": "skips", "step": 3, "why": "too <few> blocks"}]
    html = render_html({**REPORT, "search": {"strategy": "differentiable", "course": course, "acted": acted}})
    assert all(f"{name} over the steps" in html for name in ("Loss", "Entropy", "Expected latency"))
    assert "guard skips, step 3: too &lt;few&gt; blocks" in html
    for other in (None, {"course": None, "acted": 3}, {"course": [{"step": "x"}, 4], "acted": None}):
        assert "Search by gradient" not in render_html({**REPORT, "search": other})


@pytest.mark.parametrize(("waiting", "told"), [(7.0, "5.1 ms of work, 7 ms of waiting"), (4e-5, "hardly any waiting")])
def test_work_is_told_from_waiting_for_a_core(waiting, told):
    found = copy.deepcopy(REPORT)
    found["latency"] |= {"undisturbed_ms": 5.0, "work_ms": 5.1, "waiting_ms": waiting}
    assert told in render_markdown(found)
