"""An audit's ``audit.json`` as a page and as Markdown: how far a target's predictions can be trusted."""

from __future__ import annotations

from collections.abc import Callable

from ofa_deploy.documents.audit_document import Audit, AuditedNetwork, AuditFigures, ErrorFigures
from ofa_deploy.documents.report_document import Budget, Provenance, Report, Target
from ofa_deploy.report import figures, wording
from ofa_deploy.report.markdown import ICONS, opening, quoted
from ofa_deploy.report.markdown import table as markdown_table
from ofa_deploy.report.markup import element
from ofa_deploy.report.page import banner, header_facts, note, page, pairs, table, verdict_card
from ofa_deploy.report.text import MINUS, ms, pct, plain, signed_pct

HEADLINES = {
    "trusted": ("fits", "Trust the predictions"),
    "usable": ("open", "The predictions are usable"),
    "not trusted": ("over", "Do not trust the predictions"),
}
STATISTICS: tuple[tuple[str, Callable[[ErrorFigures], str]], ...] = (
    ("Mean absolute error", lambda of: pct(of.mape, "–")),
    ("Mean signed error", lambda of: signed_pct(_percent(of.bias), "–")),
    ("Within ±5 %", lambda of: pct(of.within_5, "–", 1)),
    ("Within ±10 %", lambda of: pct(of.within_10, "–", 1)),
    ("Under the 95 % bound", lambda of: pct(of.coverage_95, "–", 1)),
    ("Spearman's rank correlation", lambda of: _decimal(of.spearman)),
    ("Kendall's τ", lambda of: _decimal(of.kendall)),
    ("Repeatability of a measurement", lambda of: pct(of.repeatability, "–")),
    ("Networks fitted on", lambda of: plain(of.n_fit)),
    ("Networks held out", lambda of: plain(of.n_heldout)),
)
STATISTIC_COLUMNS = ("", "model", "sum of blocks")
NETWORK_COLUMNS = ("network", "measured", "predicted", "error", "±", "sum of blocks", "its error", "flags")
REMARK = (
    "The sum of blocks is what the table says without any whole network to learn from. Repeatability is the mean "
    "difference between the odd and the even rounds of the same measurements: no prediction can be told from a better "
    "one below it."
)


def render_audit_html(audit: Audit) -> str:
    """One audit as a self-contained page."""
    report, answer = _as_report(audit), _verdict(audit)
    body = [
        banner(wording.simulated(report)),
        element("header", element("p", "ofa-deploy audit"), element("h1", _title(audit))),
        verdict_card(answer),
        header_facts(report),
        [note(text) for text in _notes(audit)],
        element("section", element("h2", "Error of predictions"), element("p", REMARK, class_="remark")),
        table(STATISTIC_COLUMNS, [(False, cells) for cells in _statistics(audit)], "wide statistics"),
        element(
            "div",
            figures.errors(audit.networks, audit.statistic),
            figures.scatter(audit.networks, audit.statistic),
            class_="plots",
        ),
        element("section", element("h2", "Conditions"), pairs(wording.conditions(report))),
        element("section", element("h2", "Networks, worst prediction first")),
        table(NETWORK_COLUMNS, [(False, cells) for cells in _networks(audit)]),
    ]
    return page(_title(audit), body)


def render_audit_markdown(audit: Audit) -> str:
    """One audit as a Markdown document."""
    report, answer = _as_report(audit), _verdict(audit)
    parts = [f"# {quoted(plain(audit.target))}: {ICONS[answer.status]} {answer.headline.lower()}"]
    parts += opening(report, answer, _notes(audit))
    parts += ["## Error of predictions", markdown_table(STATISTIC_COLUMNS, _statistics(audit)), REMARK]
    parts += ["## Conditions", markdown_table(("condition", "value"), wording.conditions(report))]
    parts += ["## Networks, worst prediction first", markdown_table(NETWORK_COLUMNS, _networks(audit))]
    return "\n\n".join(parts) + "\n"


def _title(audit: Audit) -> str:
    return f"{plain(audit.target)}: how far to trust predictions"


def _as_report(audit: Audit) -> Report:
    """The audit in the shape of a bundle's report, for what both show."""
    condition = dict(audit.condition)
    version = condition.pop("runtime_version", None)
    if condition.get("runtime") is not None and version is not None:
        condition["runtime"] = f"{plain(condition['runtime'])} {plain(version)}"
    return Report(
        target=Target.read({**condition, "name": audit.target, "facts": audit.facts}),
        budget=Budget(statistic=audit.statistic),
        level=audit.level,
        command=audit.command,
        provenance=Provenance(measured_at=audit.measured_at),
    )


def _verdict(audit: Audit) -> wording.Verdict:
    kind, headline = HEADLINES.get(audit.status or "", ("open", "Not audited"))
    where = f"{plain(audit.space)} at {plain(audit.resolutions or None)} px"
    how = (
        f"{plain(audit.n_heldout)} networks of {where}, spread over its latencies, none of which the model had "
        f"seen; it was fitted on {plain(audit.n_fit)} others"
    )
    said = plain(audit.verdict)
    lines = [said.partition(": ")[2] or said, how]  # the headline says the rest
    if level := level_in_words(audit):
        lines.append(level)
    return wording.Verdict(kind, headline, lines)


def level_in_words(audit: AuditFigures) -> str:
    """At which level an audit judged, and how far off predictions at the profile's level were; empty if unknown."""
    level, once = audit.level, audit.as_profiled
    if level is None or level.known is None or audit.bias is None or once is None or once.bias is None:
        return ""
    factor, low, high = level.known
    said = f" ({'; '.join(level.reasons)})" if level.reasons else ""
    return (
        f"the device was {factor:.2f} times as slow as when it was profiled ({low:.2f} to {high:.2f}){said}; at the "
        f"level of these rounds predictions are off by {100 * audit.bias:+.1f} % on average, at that of the profile by "
        f"{100 * once.bias:+.1f} %"
    )


def _statistics(audit: Audit) -> list[list[str]]:
    alone = audit.table_only
    return [[name, shown(audit), "–" if alone is None else shown(alone)] for name, shown in STATISTICS]


def _networks(audit: Audit) -> list[list[str]]:
    return [_network(row) for row in sorted(audit.networks, key=lambda row: -abs(_error(row, row.predicted_ms) or 0.0))]


def _network(row: AuditedNetwork) -> list[str]:
    return [
        wording.short(row.key),
        ms(row.measured_ms),
        ms(row.predicted_ms, "–"),
        signed_pct(_percent(_error(row, row.predicted_ms)), "–"),
        pct(_share(row.std_ms, row.predicted_ms), "–", 1),
        ms(row.table_ms, "–"),
        signed_pct(_percent(_error(row, row.table_ms)), "–"),
        ", ".join(row.flags),
    ]


def _error(row: AuditedNetwork, forecast: float | None) -> float | None:
    ratio = _share(forecast, row.measured_ms)
    return None if ratio is None else ratio - 1


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _notes(audit: Audit) -> list[str]:
    flagged, total = sum(bool(row.flags) for row in audit.networks), len(audit.networks)
    if not flagged:
        return []
    return [f"{flagged} of {total} measurements are flagged: less sure than asked, or taken while throttling."]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".replace("-", MINUS)
