"""A ranking audit's answer as a page and as Markdown: how far accuracies that nobody trained for can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.ranking_document import Agreement, RankedNetwork, Ranking
from ofa_deploy.report import wording
from ofa_deploy.report.figures import card
from ofa_deploy.report.markdown import ICONS, fenced, quoted
from ofa_deploy.report.markdown import table as markdown_table
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.page import page, table, verdict_card
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import MINUS, accuracy, plain, predicted

NEAR = 0.1  # a score whose τ is so near the ceiling ranks like one more training
CEILING = "two seeds, from scratch"
SCORE_COLUMNS = ("score", "Kendall's τ", "95 % interval", "ms a network")
NETWORK_COLUMNS = ("network", "alone, by seed", "inherited", "difference", "predicted", "MACs")
ALONE = "Networks trained alone, from scratch, against what they answer with the supernet's weights."
TAUS = "How alike each score and the stand-alone trainings order the networks; lines are 95 % intervals."
REMARK = "No score can be asked to agree with one seed better than another seed does: that is the ceiling."


def render_ranking_html(audit: Ranking) -> str:
    """One ranking audit as a self-contained page."""
    title, answer, command = _title(audit), _verdict(audit), audit.command
    body = [
        element("header", element("p", "ofa-deploy audit --ranking"), element("h1", title)),
        verdict_card(answer),
        element("pre", command, class_="command") if command else None,
        element("div", _against(audit), _taus(audit), class_="plots"),
        element("section", element("h2", "Scores"), element("p", REMARK, class_="remark")),
        table(SCORE_COLUMNS, [(cells[0] == CEILING, cells) for cells in _scores(audit)]),
        element("section", element("h2", "Networks")),
        table(NETWORK_COLUMNS, [(False, cells) for cells in _networks(audit)]),
    ]
    return page(title, body)


def render_ranking_markdown(audit: Ranking) -> str:
    """One ranking audit as a Markdown document."""
    answer = _verdict(audit)
    parts = [f"# {quoted(_title(audit))}: {ICONS[answer.status]} {answer.headline}"]
    parts += ["\n".join(f"- {quoted(line)}" for line in answer.lines)]
    parts += [fenced(audit.command)] if audit.command else []
    parts += ["## Scores", markdown_table(SCORE_COLUMNS, _scores(audit)), REMARK]
    parts += ["## Networks", markdown_table(NETWORK_COLUMNS, _networks(audit))]
    return "\n\n".join(parts) + "\n"


def _title(audit: Ranking) -> str:
    return f"{plain(audit.name)}: how far to trust the ranking"


def _verdict(audit: Ranking) -> wording.Verdict:
    tau, gap = audit.scores.get("inherited", Agreement()).tau, audit.gap
    most = None if audit.ceiling is None else audit.ceiling.tau
    lines = [
        f"Kendall's τ of inherited accuracies with training alone: {_tau(tau)}; of one seed with another: {_tau(most)}",
        f"inherited {MINUS} alone: {_points(gap.mean)} points on average, {_points(gap.least)} to {_points(gap.most)}",
        f"{plain(audit.networks)} networks of {plain(audit.space)}, {plain(audit.epochs)} epochs each, on "
        f"{plain(audit.images)} held-out images of the training split",
    ]
    if tau is None or most is None:
        return wording.Verdict("open", "the ranking has no ceiling to be compared with", lines)
    if tau >= most - NEAR:
        return wording.Verdict("fits", "the supernet ranks like one more training of each network", lines)
    return wording.Verdict("over", "the supernet ranks less well than training each network", lines)


def _ranked(audit: Ranking) -> list[tuple[str, Agreement]]:
    """The ceiling, then the scores, the best first; those without a τ last."""
    found = sorted(audit.scores.items(), key=lambda score: -1.0 if score[1].tau is None else score[1].tau, reverse=True)
    return [(CEILING, audit.ceiling), *found] if audit.ceiling else found


def _scores(audit: Ranking) -> list[list[str]]:
    return [[name, _tau(one.tau), _interval(one), _ms(one.ms)] for name, one in _ranked(audit)]


def _networks(audit: Ranking) -> list[list[str]]:
    return [
        [
            wording.short(row.key),
            ", ".join(accuracy(value, audit.images) for value in row.alone),
            accuracy(row.scores.inherited, audit.images),
            _points(_difference(row)),
            predicted(row.scores.predictor, audit.predictor or PredictorError(), "–"),
            _millions(row.scores.macs),
        ]
        for row in audit.rows
    ]


def _against(audit: Ranking) -> Markup:
    """Inherited accuracy over that of training alone, a line where a network has several seeds."""
    title = "Inherited against alone"
    points = [(row.alone, row.scores.inherited, row) for row in audit.rows]
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
        n = audit.images
        name = f"{wording.short(row.key)}: alone {accuracy(mean, n)}, inherited {accuracy(inherited, n)}"
        plot.marker(100 * mean, inherited, "evidence", name)
    meaning = [("evidence", "dot", "a network, mean of its seeds"), ("spread", "line", "its seeds")]
    return card(title, ALONE, plot.svg("Inherited accuracy over that of training alone"), legend(meaning))


def _taus(audit: Ranking) -> Markup:
    """Every score's τ with its interval, the ceiling first."""
    title = "Agreement of the rankings"
    shown = [(name, tau, one) for name, one in _ranked(audit) if (tau := one.tau) is not None]
    if not shown:
        return card(title, TAUS, element("p", "No score ranks the networks.", class_="empty"))
    ends = [value for _, tau, one in shown for value in (tau, one.low, one.high) if value is not None]
    plot = Plot.over("taus", (0.5, len(shown) + 0.5), limits(ends))
    plot.axes("score, in the order of the table", "Kendall's τ")
    for place, (name, tau, one) in enumerate(shown, 1):
        if one.low is not None and one.high is not None:
            plot.line([(place, one.low), (place, one.high)], "spread")
        kind = "chosen" if name == CEILING else "evidence"
        plot.marker(place, tau, kind, f"{name}: {_tau(tau)}")
    meaning = [("chosen", "dot", CEILING), ("evidence", "dot", "a score")]
    return card(title, TAUS, plot.svg("Kendall's tau of every score"), legend(meaning))


def _difference(row: RankedNetwork) -> float | None:
    seeds, inherited = row.alone, row.scores.inherited
    return inherited - sum(seeds) / len(seeds) if seeds and inherited is not None else None


def _percents(fractions: Sequence[float]) -> tuple[float, float]:
    return limits([100 * value for value in fractions])


def _points(value: float | None) -> str:
    """A difference of fractions, in points."""
    return "–" if value is None else f"{100 * value:+.2f}".replace("-", MINUS)


def _tau(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", MINUS)


def _interval(one: Agreement) -> str:
    return "" if one.low is None else f"{_tau(one.low)} to {_tau(one.high)}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _millions(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:.2f} M"
