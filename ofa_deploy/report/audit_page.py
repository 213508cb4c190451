"""An audit's ``audit.json`` as a page and as Markdown: how far a target's predictions can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofa_deploy.report import figures, wording
from ofa_deploy.report.html import banner, header_facts, note, page, pairs, table, verdict_card
from ofa_deploy.report.markdown import ICONS, opening, quoted
from ofa_deploy.report.markdown import table as markdown_table
from ofa_deploy.report.markup import element
from ofa_deploy.report.text import get, ms, number, pct, plain, rows, signed_pct

HEADLINES = {
    "trusted": ("fits", "Trust the predictions"),
    "usable": ("open", "The predictions are usable"),
    "not trusted": ("over", "Do not trust the predictions"),
}
STATISTICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("Mean absolute error", "mape", lambda value: pct(value, "–")),
    ("Mean signed error", "bias", lambda value: signed_pct(_percent(value), "–")),
    ("Within ±5 %", "within_5", lambda value: pct(value, "–", 1)),
    ("Within ±10 %", "within_10", lambda value: pct(value, "–", 1)),
    ("Under the 95 % bound", "coverage_95", lambda value: pct(value, "–", 1)),
    ("Spearman's rank correlation", "spearman", lambda value: _decimal(value)),
    ("Kendall's τ", "kendall", lambda value: _decimal(value)),
    ("Repeatability of a measurement", "repeatability", lambda value: pct(value, "–")),
    ("Networks fitted on", "n_fit", lambda value: plain(value)),
    ("Networks held out", "n_heldout", lambda value: plain(value)),
)
STATISTIC_COLUMNS = ("", "model", "sum of blocks")
NETWORK_COLUMNS = ("network", "measured", "predicted", "error", "±", "sum of blocks", "its error", "flags")
REMARK = (
    "The sum of blocks is what the table says without any whole network to learn from. Repeatability is the mean "
    "difference between the odd and the even rounds of the same measurements: no prediction can be told from a better "
    "one below it."
)


def render_audit_html(audit: dict[str, Any]) -> str:
    """One audit as a self-contained page.

    Args:
        audit: ``audit.json``; anything in it may be null.
    """
    report, answer = _as_report(audit), _verdict(audit)
    title = f"{plain(get(audit, 'target'))}: how far to trust predictions"
    body = [
        banner(wording.simulated(report)),
        element("header", element("p", "ofa-deploy audit"), element("h1", title)),
        verdict_card(answer),
        header_facts(report),
        [note(text) for text in _notes(audit)],
        element("section", element("h2", "Error of predictions"), element("p", REMARK, class_="remark")),
        table(STATISTIC_COLUMNS, [(False, cells) for cells in _statistics(audit)], "wide statistics"),
        element("div", figures.errors(report), figures.scatter(report), class_="plots"),
        element("section", element("h2", "Conditions"), pairs(wording.conditions(report))),
        element("section", element("h2", "Networks, worst prediction first")),
        table(NETWORK_COLUMNS, [(False, cells) for cells in _networks(audit)]),
    ]
    return page(title, body)


def render_audit_markdown(audit: dict[str, Any]) -> str:
    """One audit as a Markdown document."""
    report, answer = _as_report(audit), _verdict(audit)
    parts = [f"# {quoted(plain(get(audit, 'target')))}: {ICONS[answer.status]} {answer.headline.lower()}"]
    parts += opening(report, answer, _notes(audit))
    parts += ["## Error of predictions", markdown_table(STATISTIC_COLUMNS, _statistics(audit)), REMARK]
    parts += ["## Conditions", markdown_table(("condition", "value"), wording.conditions(report))]
    parts += ["## Networks, worst prediction first", markdown_table(NETWORK_COLUMNS, _networks(audit))]
    return "\n\n".join(parts) + "\n"


def _as_report(audit: dict[str, Any]) -> dict[str, Any]:
    """The audit in the shape of a bundle's report, for what both show."""
    condition = get(audit, "condition")
    target = dict(condition) if isinstance(condition, dict) else {}
    version = target.pop("runtime_version", None)
    if target.get("runtime") is not None and version is not None:
        target["runtime"] = f"{plain(target['runtime'])} {plain(version)}"
    return {
        "target": {**target, "name": get(audit, "target"), "facts": get(audit, "facts")},
        "budget": {"statistic": get(audit, "statistic")},
        "networks": get(audit, "networks"),
        "level": get(audit, "level"),
        "command": get(audit, "command"),
        "provenance": {"measured_at": get(audit, "measured_at")},
    }


def _verdict(audit: dict[str, Any]) -> wording.Verdict:
    status = get(audit, "status")
    kind, headline = HEADLINES.get(status if isinstance(status, str) else "", ("open", "Not audited"))
    where = f"{plain(get(audit, 'space'))} at {plain(get(audit, 'resolutions'))} px"
    how = (
        f"{plain(get(audit, 'n_heldout'))} networks of {where}, spread over its latencies, none of which the model had "
        f"seen; it was fitted on {plain(get(audit, 'n_fit'))} others"
    )
    said = plain(get(audit, "verdict"))
    lines = [said.partition(": ")[2] or said, how]  # the headline says the rest
    if level := level_in_words(audit):
        lines.append(level)
    return wording.Verdict(kind, headline, lines)


def level_in_words(audit: dict[str, Any]) -> str:
    """At which level an audit judged, and how far off predictions at the profile's level were; empty if unknown."""
    factor, low, high = (number(get(audit, f"level.{name}")) for name in ("factor", "low", "high"))
    bias, once = (number(get(audit, name)) for name in ("bias", "as_profiled.bias"))
    if factor is None or low is None or high is None or bias is None or once is None:
        return ""
    why = get(audit, "level.reasons")
    said = f" ({'; '.join(map(plain, why))})" if isinstance(why, list) and why else ""
    return (
        f"the device was {factor:.2f} times as slow as when it was profiled ({low:.2f} to {high:.2f}){said}; at the "
        f"level of these rounds predictions are off by {100 * bias:+.1f} % on average, at that of the profile by "
        f"{100 * once:+.1f} %"
    )


def _statistics(audit: dict[str, Any]) -> list[list[str]]:
    return [
        [name, shown(get(audit, key)), shown(get(audit, f"table_only.{key}")) if get(audit, "table_only") else "–"]
        for name, key, shown in STATISTICS
    ]


def _networks(audit: dict[str, Any]) -> list[list[str]]:
    found = rows(audit, "networks")
    return [_network(row) for row in sorted(found, key=lambda row: -abs(_error(row, "predicted_ms") or 0.0))]


def _network(row: dict[str, Any]) -> list[str]:
    return [
        wording.short(row.get("key")),
        ms(row.get("measured_ms")),
        ms(row.get("predicted_ms"), "–"),
        signed_pct(_percent(_error(row, "predicted_ms")), "–"),
        pct(_share(row.get("std_ms"), row.get("predicted_ms")), "–", 1),
        ms(row.get("table_ms"), "–"),
        signed_pct(_percent(_error(row, "table_ms")), "–"),
        plain(row.get("flags")) if row.get("flags") else "",
    ]


def _error(row: dict[str, Any], name: str) -> float | None:
    ratio = _share(row.get(name), row.get("measured_ms"))
    return None if ratio is None else ratio - 1


def _share(part: Any, whole: Any) -> float | None:
    one, other = number(part), number(whole)
    return one / other if one is not None and other else None


def _notes(audit: dict[str, Any]) -> list[str]:
    flagged = [row for row in rows(audit, "networks") if row.get("flags")]
    if not flagged:
        return []
    total = len(rows(audit, "networks"))
    return [f"{len(flagged)} of {total} measurements are flagged: less sure than asked, or taken while throttling."]


def _percent(value: Any) -> float | None:
    found = number(value)
    return None if found is None else 100 * found


def _decimal(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.4f}".replace("-", "−")
