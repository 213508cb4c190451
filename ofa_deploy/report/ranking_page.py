"""A ranking audit's answer as a page and as Markdown: how far accuracies that nobody trained for can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ofa_deploy.report import wording
from ofa_deploy.report.figures import card
from ofa_deploy.report.html import page, table, verdict_card
from ofa_deploy.report.markdown import ICONS, fenced, quoted
from ofa_deploy.report.markdown import table as markdown_table
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import MINUS, accuracy, get, number, plain, predicted, rows

NEAR = 0.1  # a score whose τ is so near the ceiling ranks like one more training
CEILING = "two seeds, from scratch"
SCORE_COLUMNS = ("score", "Kendall's τ", "95 % interval", "ms a network")
NETWORK_COLUMNS = ("network", "alone, by seed", "inherited", "difference", "predicted", "MACs")
ALONE = "Networks trained alone, from scratch, against what they answer with the supernet's weights."
TAUS = "How alike each score and the stand-alone trainings order the networks; lines are 95 % intervals."
REMARK = "No score can be asked to agree with one seed better than another seed does: that is the ceiling."


def render_ranking_html(audit: dict[str, Any]) -> str:
    """One ranking audit as a self-contained page.

    Args:
        audit: ``ranking.json``; anything in it may be null.
    """
    title, answer, command = _title(audit), _verdict(audit), get(audit, "command")
    body = [
        element("header", element("p", "ofa-deploy audit --ranking"), element("h1", title)),
        verdict_card(answer),
        element("pre", plain(command), class_="command") if command else None,
        element("div", _against(audit), _taus(audit), class_="plots"),
        element("section", element("h2", "Scores"), element("p", REMARK, class_="remark")),
        table(SCORE_COLUMNS, [(cells[0] == CEILING, cells) for cells in _scores(audit)]),
        element("section", element("h2", "Networks")),
        table(NETWORK_COLUMNS, [(False, cells) for cells in _networks(audit)]),
    ]
    return page(title, body)


def render_ranking_markdown(audit: dict[str, Any]) -> str:
    """One ranking audit as a Markdown document."""
    answer, command = _verdict(audit), get(audit, "command")
    parts = [f"# {quoted(_title(audit))}: {ICONS[answer.status]} {answer.headline}"]
    parts += ["\n".join(f"- {quoted(line)}" for line in answer.lines)]
    parts += [fenced(str(command))] if command else []
    parts += ["## Scores", markdown_table(SCORE_COLUMNS, _scores(audit)), REMARK]
    parts += ["## Networks", markdown_table(NETWORK_COLUMNS, _networks(audit))]
    return "\n\n".join(parts) + "\n"


def _title(audit: dict[str, Any]) -> str:
    return f"{plain(get(audit, 'name'))}: how far to trust the ranking"


def _verdict(audit: dict[str, Any]) -> wording.Verdict:
    tau, most = number(get(audit, "scores.inherited.tau")), number(get(audit, "ceiling.tau"))
    gap = {name: _points(get(audit, f"gap.{name}")) for name in ("mean", "least", "most")}
    lines = [
        f"Kendall's τ of inherited accuracies with training alone: {_tau(tau)}; of one seed with another: {_tau(most)}",
        f"inherited {MINUS} alone: {gap['mean']} points on average, {gap['least']} to {gap['most']}",
        f"{plain(get(audit, 'networks'))} networks of {plain(get(audit, 'space'))}, {plain(get(audit, 'epochs'))} "
        f"epochs each, on {plain(get(audit, 'images'))} held-out images of the training split",
    ]
    if tau is None or most is None:
        return wording.Verdict("open", "the ranking has no ceiling to be compared with", lines)
    if tau >= most - NEAR:
        return wording.Verdict("fits", "the supernet ranks like one more training of each network", lines)
    return wording.Verdict("over", "the supernet ranks less well than training each network", lines)


def _ranked(audit: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The ceiling, then the scores, the best first; those without a τ last."""
    scores = get(audit, "scores")
    found = sorted(scores.items(), key=lambda score: -_order(score[1])) if isinstance(scores, dict) else []
    return [(CEILING, most), *found] if (most := get(audit, "ceiling")) else found


def _order(score: Any) -> float:
    tau = number(get(score, "tau"))
    return -1.0 if tau is None else tau


def _scores(audit: dict[str, Any]) -> list[list[str]]:
    return [[name, _tau(get(one, "tau")), _interval(one), _ms(get(one, "ms"))] for name, one in _ranked(audit)]


def _networks(audit: dict[str, Any]) -> list[list[str]]:
    images = get(audit, "images")
    return [
        [
            wording.short(row.get("key")),
            ", ".join(accuracy(value, images) for value in _alone(row)),
            accuracy(get(row, "scores.inherited"), images),
            _points(_difference(row)),
            predicted(get(row, "scores.predictor"), get(audit, "predictor"), "–"),
            _millions(get(row, "scores.macs")),
        ]
        for row in rows(audit, "rows")
    ]


def _against(audit: dict[str, Any]) -> Markup:
    """Inherited accuracy over that of training alone, a line where a network has several seeds."""
    title = "Inherited against alone"
    points = [(_alone(row), number(get(row, "scores.inherited")), row) for row in rows(audit, "rows")]
    shown = [(seeds, inherited, row) for seeds, inherited, row in points if seeds and inherited is not None]
    if not shown:
        return card(title, ALONE, element("p", "No network was trained.", class_="empty"))
    xs, ys = [x for seeds, _, _ in shown for x in seeds], [inherited for _, inherited, _ in shown]
    plot = Plot.over("against", _percents(xs), limits(ys))
    plot.axes("alone (%)", "inherited (%)", percent=True)
    low, high = limits([*xs, *ys])
    plot.line([(100 * low, low), (100 * high, high)], "ideal")
    for seeds, inherited, row in shown:
        mean = sum(seeds) / len(seeds)
        plot.line([(100 * min(seeds), inherited), (100 * max(seeds), inherited)], "spread")
        n = get(audit, "images")
        name = f"{wording.short(row.get('key'))}: alone {accuracy(mean, n)}, inherited {accuracy(inherited, n)}"
        plot.marker(100 * mean, inherited, "evidence", name)
    meaning = [("evidence", "dot", "a network, mean of its seeds"), ("spread", "line", "its seeds")]
    return card(title, ALONE, plot.svg("Inherited accuracy over that of training alone"), legend(meaning))


def _taus(audit: dict[str, Any]) -> Markup:
    """Every score's τ with its interval, the ceiling first."""
    title = "Agreement of the rankings"
    shown = [(name, one) for name, one in _ranked(audit) if number(get(one, "tau")) is not None]
    if not shown:
        return card(title, TAUS, element("p", "No score ranks the networks.", class_="empty"))
    ends = [v for _, one in shown for key in ("tau", "low", "high") if (v := number(get(one, key))) is not None]
    plot = Plot.over("taus", (0.5, len(shown) + 0.5), limits(ends))
    plot.axes("score, in the order of the table", "Kendall's τ")
    for place, (name, one) in enumerate(shown, 1):
        if (low := number(get(one, "low"))) is not None and (high := number(get(one, "high"))) is not None:
            plot.line([(place, low), (place, high)], "spread")
        kind = "chosen" if name == CEILING else "evidence"
        plot.marker(place, one["tau"], kind, f"{name}: {_tau(one['tau'])}")
    meaning = [("chosen", "dot", CEILING), ("evidence", "dot", "a score")]
    return card(title, TAUS, plot.svg("Kendall's tau of every score"), legend(meaning))


def _alone(row: dict[str, Any]) -> list[float]:
    found = row.get("alone")
    return [v for value in found if (v := number(value)) is not None] if isinstance(found, list) else []


def _difference(row: dict[str, Any]) -> float | None:
    seeds, inherited = _alone(row), number(get(row, "scores.inherited"))
    return inherited - sum(seeds) / len(seeds) if seeds and inherited is not None else None


def _percents(fractions: Sequence[float]) -> tuple[float, float]:
    return limits([100 * value for value in fractions])


def _points(value: Any) -> str:
    """A difference of fractions, in points."""
    found = number(value)
    return "–" if found is None else f"{100 * found:+.2f}".replace("-", MINUS)


def _tau(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.2f}".replace("-", MINUS)


def _interval(one: dict[str, Any]) -> str:
    low, high = get(one, "low"), get(one, "high")
    return "" if number(low) is None else f"{_tau(low)} to {_tau(high)}"


def _ms(value: Any) -> str:
    found = number(value)
    return "" if found is None else f"{found:.3g}"


def _millions(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found / 1e6:.2f} M"
