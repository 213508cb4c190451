import copy
import re

import pytest
from test_report import EVIL, Page, everywhere, leaves, replaced

from ofa_deploy import report as pages
from ofa_deploy.documents.ranking_document import Ranking

AUDIT = {
    "kind": "ranking",
    "name": "boxes",
    "space": "tiny_16",
    "images": 500,
    "epochs": 2,
    "networks": 3,
    "seeds": 2,
    "repeated": 3,
    "ceiling": {"tau": 0.8, "low": 0.5, "high": 1.0},
    "scores": {
        "naswot (untrained)": {"tau": -0.25, "low": -0.5, "high": 0.1, "ms": 12.5},
        "inherited": {"tau": 0.75, "low": 0.4, "high": 0.9, "ms": None},
        "params": {"tau": None, "low": None, "high": None, "ms": None},
        "predictor": {"tau": 0.5, "low": 0.2, "high": 0.8, "ms": 0.031},
    },
    "gap": {"mean": 0.0123, "least": -0.004, "most": 0.02},
    "command": "ofa-deploy audit --ranking --networks 3",
    "rows": [
        {
            "key": name * 64,
            "alone": [alone, alone + 0.01],
            "scores": {"inherited": alone + 0.02, "predictor": alone + 0.015, "macs": 2.5e6, "params": 1e5},
        }
        for name, alone in (("a", 0.85), ("b", 0.86), ("c", 0.88))
    ],
}


def render_ranking_html(audit):
    return pages.render_ranking_html(Ranking.read(audit))


def render_ranking_markdown(audit):
    return pages.render_ranking_markdown(Ranking.read(audit))


def texts(audit):
    return Page(render_ranking_html(audit)).shown, render_ranking_markdown(audit).replace("\\", "")


def test_the_answer_comes_first():
    for text in texts(AUDIT):
        for needed in (
            "the supernet ranks like one more training of each network",
            "Kendall's τ of inherited accuracies with training alone: 0.75; of one seed with another: 0.80",
            "inherited − alone: +1.23 points on average, −0.40 to +2.00",
            "3 networks of tiny_16, 2 epochs each, on 500 held-out images",
            "ofa-deploy audit --ranking --networks 3",
        ):
            assert needed in text
        for needed in (
            "aaaaaaaa",
            "85.0 % ±3.4 (n 500), 86.0 % ±3.3 (n 500)",
            "87.0 % ±3.2 (n 500)",
            "+1.50",
            "86.50 %",
            "2.50 M",
            "0.40 to 0.90",
            "12.5",
        ):
            assert needed in text


def test_scores_come_in_the_order_of_their_rankings():
    for text in texts(AUDIT):
        table = text[text.index("Scores") :]
        names = ("two seeds, from scratch", "inherited", "predictor", "naswot (untrained)", "params")
        assert sorted(names, key=table.index) == list(names)
        assert "−0.25" in table


@pytest.mark.parametrize(
    ("tau", "ceiling", "said"),
    [(0.6, 0.8, "less well than training"), (0.6, 0.65, "like one more training"), (0.6, None, "no ceiling")],
)
def test_the_verdict_is_that_of_the_ceiling(tau, ceiling, said):
    audit = copy.deepcopy(AUDIT)
    audit["scores"]["inherited"]["tau"] = tau
    audit["ceiling"] = None if ceiling is None else {"tau": ceiling, "low": None, "high": None}
    for text in texts(audit):
        assert said in text


@pytest.mark.parametrize("path", list(leaves(AUDIT)), ids=lambda path: ".".join(map(str, path)))
def test_any_part_may_be_null_or_of_another_kind(path):
    for text in texts(replaced(AUDIT, path, None)):
        assert not re.search(r"\b(None|null|nan|NaN)\b", text)
    for wrong in ("text", [], {}, True, 1e999, [1, "a"]):
        texts(replaced(AUDIT, path, wrong))


def test_nothing_at_all_reads_well():
    for text in texts({}):
        assert "no ceiling" in text


def test_nothing_from_json_becomes_markup():
    audit = everywhere(AUDIT, EVIL)
    page = Page(render_ranking_html(audit))
    assert set(page.tags) <= set(Page(render_ranking_html(AUDIT)).tags)
    assert page.addresses == []
    assert EVIL.split()[0] in page.shown
    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", render_ranking_markdown(audit))
    assert not re.search(r"(?<!\\)[<\[`]", outside)


def test_ids_are_unique_and_nothing_is_loaded():
    html = render_ranking_html(AUDIT)
    found = re.findall(r' id="([^"]*)"', html)
    assert len(found) == len(set(found))
    assert not re.search(r"@import|url\((?!#)|https?:", html)
