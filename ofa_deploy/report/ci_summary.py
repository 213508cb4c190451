"""What a pipeline's run came to, for those who read it in a continuous integration service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from ofa_deploy.documents.summary_document import BundleTold, Change, GateTold, Summary, UnitTold
from ofa_deploy.report.text import accuracy

STATES = {True: "passed", False: "FAILED", None: "not compared"}


def render_summary(summary: Summary) -> str:
    """``summary.json`` as Markdown: verdict, bundles, gates, what changed since the last release, units of work."""
    lines = [f"# {summary.pipeline}: {'passed' if summary.passed else 'FAILED'}", ""]
    if summary.error:
        lines += [f"**{_cell(summary.error)}**", ""]
    lines += _section("Bundles", BUNDLES, map(_bundle, summary.bundles))
    lines += _section("Gates", ("bundle", "gate", "verdict", "why"), map(_gate, summary.gates))
    compared = [_change(bundle, bundle.baseline) for bundle in summary.bundles if bundle.baseline]
    lines += _section("Since the last release", CHANGES, compared)
    lines += _section("Work", ("unit", "status", "seconds", "why"), map(_unit, summary.units))
    return "\n".join(lines)


BUNDLES = ("bundle", "target", "budget ms", "predicted ms", "measured p50 ms", "accuracy", "size MB")
CHANGES = ("bundle", "p50 ms then", "latency", "", "accuracy", "size", "subnet")


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    head = [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *body, ""] if body else []


def _cell(value: str) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _bundle(bundle: BundleTold) -> Sequence[str]:
    simulated = "SIMULATED " if bundle.simulated else ""
    return (
        f"`{bundle.folder}`",
        f"{simulated}{bundle.target}",
        "none" if bundle.max_ms is None else f"{bundle.max_ms:g}",
        _digits(bundle.predicted_ms, 4),
        _digits(bundle.p50_ms, 4),
        accuracy(bundle.accuracy, bundle.n),
        _digits(None if bundle.size_bytes is None else bundle.size_bytes / 1e6, 2),
    )


def _digits(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _gate(verdict: GateTold) -> Sequence[str]:
    return f"`{verdict.bundle}`", f"`{verdict.gate}`", STATES[verdict.passed], verdict.why


def _change(bundle: BundleTold, then: Change) -> Sequence[str]:
    better = "–" if then.accuracy is None else f"{100 * then.accuracy:+.2f} points"
    if then.accuracy_error is not None:
        better += f" ±{100 * then.accuracy_error:.2f}"
    return (
        f"`{bundle.folder}`",
        f"{then.p50_ms:.4f}",
        f"{100 * (then.latency - 1):+.1f} %",
        "SLOWER" if then.slower else "",
        better,
        f"{100 * (then.size - 1):+.1f} %",
        "the same" if then.key == bundle.key else "another",
    )


def _unit(unit: UnitTold) -> Sequence[str]:
    return unit.name, unit.status, f"{unit.seconds:.1f}", unit.why


def render_junit(summary: Summary) -> str:
    """``summary.json`` as JUnit XML: a test case for every unit of work and every gate."""
    units, gates = summary.units, summary.gates
    failed = sum(unit.status == "failed" for unit in units) + sum(gate.passed is False for gate in gates)
    idle = sum(unit.status == "not run" for unit in units) + sum(gate.passed is None for gate in gates)
    counts = {"tests": str(len(units) + len(gates)), "failures": str(failed), "skipped": str(idle), "errors": "0"}
    suite = ElementTree.Element("testsuite", {"name": summary.pipeline, **counts})
    for unit in units:
        # an unchanged unit is as good as done
        states = {"failed": "failure", "not run": "skipped"}
        _case(suite, "units", unit.name, unit.seconds, states.get(unit.status), unit.why)
    for gate in gates:
        _case(suite, f"gates.{gate.bundle}", gate.gate, 0.0, VERDICTS[gate.passed], gate.why)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"


VERDICTS = {True: None, False: "failure", None: "skipped"}


def _case(suite: ElementTree.Element, group: str, name: str, seconds: float, state: str | None, why: str) -> None:
    names = {"classname": f"{suite.get('name')}.{group}", "name": name, "time": f"{seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", names)
    if state:
        ElementTree.SubElement(case, state, {"message": why})
