"""What a pipeline's run came to: its units of work, reports, gates, and how they compare with an earlier run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_deploy.documents.report_document import Accuracy, Report
from ofa_deploy.documents.summary_document import BundleTold, Change, GateTold, Summary, UnitTold
from ofa_deploy.errors import GateFailed, OfaDeployError
from ofa_deploy.files import write_atomic
from ofa_deploy.intervals import Z95, difference_error
from ofa_deploy.pipeline.gates import Verdict
from ofa_deploy.report.ci_summary import render_junit, render_summary

SURE = Z95  # standard errors: what a latency may differ from an earlier one by chance


@dataclass(frozen=True)
class Unit:
    """A unit of work.

    Attributes:
        target: on which it worked; None where all others rest on it.
        status: ``done``, ``skipped``, ``failed``, ``not run`` or, of a dry run, ``would run``.
        why: in words.
    """

    name: str
    target: str | None
    status: str
    why: str = ""
    seconds: float = 0.0
    error: OfaDeployError | None = None


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        folder: of the pipeline's bundles and its summaries.
        reports: report of every bundle, with its folder under ``bundle``.
        page: the page that compares them; None without a compare stage.
    """

    name: str
    folder: Path
    units: list[Unit] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    page: Path | None = None

    def add(self, unit: Unit) -> None:
        """Note what became of a unit."""
        self.units.append(unit)

    def blocked(self, target: str | None) -> str | None:
        """Why a unit on a target cannot be done, or judged in a dry run, after what became of those before it."""
        for unit in self.units:
            if unit.target in (None, target) and unit.status in ("failed", "not run", "would run"):
                return f"after: {unit.name}"
        return None

    @property
    def skipped(self) -> list[str]:
        """Names of the units that had not changed."""
        return [unit.name for unit in self.units if unit.status == "skipped"]

    @property
    def error(self) -> OfaDeployError | None:
        """What makes the run fail: the first unit that did, or a gate."""
        failed = [unit for unit in self.units if unit.error is not None]
        if failed:
            first = failed[0]
            if len(failed) == 1 or first.error is None:
                return first.error
            return type(first.error)(f"{first.error} ({len(failed) - 1} more failed; see {self.folder / 'summary.md'})")
        missed = [verdict for verdict in self.verdicts if verdict.passed is False]
        if not missed:
            return None
        more = f" ({len(missed) - 1} more; see {self.folder / 'summary.md'})" if missed[1:] else ""
        return GateFailed(f"{missed[0].bundle}: the gate {missed[0].gate!r} failed: {missed[0].why}{more}")

    def compare_with(self, earlier: Path | None) -> None:
        """Add to every report what changed since the bundle of the same name in an earlier run's folder."""
        for report in self.reports:
            file = earlier / report["folder"] / "report.json" if earlier else None
            report["baseline"] = None
            if file and file.is_file():
                change = _changes(Report.read(report), Report.read(json.loads(file.read_text())))
                report["baseline"] = change and change.to_json()

    @property
    def summary(self) -> Summary:
        """What ``summary.json`` says."""
        return Summary(
            schema=1,
            pipeline=self.name,
            passed=self.error is None,
            error=str(self.error) if self.error else None,
            units=[
                UnitTold(name=u.name, target=u.target, status=u.status, why=u.why, seconds=round(u.seconds, 3))
                for u in self.units
            ],
            gates=[GateTold(**verdict._asdict()) for verdict in self.verdicts],
            bundles=[_bundle(report) for report in self.reports],
            page=self.page.name if self.page else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return self.summary.to_json()

    def write(self) -> None:
        """Write ``summary.json``, ``summary.md`` and ``junit.xml``."""
        summary = self.summary
        for name, content in (
            ("summary.json", json.dumps(summary.to_json(), indent=1, sort_keys=True) + "\n"),
            ("summary.md", render_summary(summary)),
            ("junit.xml", render_junit(summary)),
        ):
            write_atomic(self.folder / name, content.encode())


def _bundle(told: dict[str, Any]) -> BundleTold:
    report = Report.read(told)
    latency, accuracy = report.latency, report.accuracy
    return BundleTold(
        folder=told["folder"],
        target=report.target.name,
        simulated=bool(report.target.simulated),
        max_ms=report.budget.max_ms,
        predicted_ms=latency.predicted_ms,
        p50_ms=latency.measured("p50"),
        accuracy=accuracy.measured,
        n=accuracy.n,
        expected=accuracy.posterior,
        drop=accuracy.drop,
        params=report.subnet.params,
        size_bytes=report.size_bytes,
        key=report.subnet.key,
        baseline=told.get("baseline"),
    )


def _changes(now: Report, then: Report) -> Change | None:
    """Ratios of latency and size, and the difference of accuracies; ``slower`` where it is so beyond chance. None where
    the earlier bundle was not measured."""
    new, old = now.latency.measured_ms, then.latency.measured_ms
    if not (new and old and new.p50 and old.p50 and now.size_bytes and then.size_bytes):
        return None
    ratio = new.p50 / old.p50
    error = sum((part or 0.0) ** 2 for part in (new.se, old.se, now.latency.session_std)) ** 0.5
    better, unsure = _better(now.accuracy, then.accuracy)
    return Change(
        latency=ratio,
        slower=ratio - 1 > SURE * error,
        accuracy=better,
        accuracy_error=unsure,
        size=now.size_bytes / then.size_bytes,
        p50_ms=old.p50,
        key=then.subnet.key,
    )


def _better(now: Accuracy, then: Accuracy) -> tuple[float | None, float | None]:
    """By how much the accuracy rose, and that difference's standard error; None where one of both is unknown."""
    if now.measured is None or then.measured is None or now.n is None or then.n is None:
        return None, None
    return now.measured - then.measured, difference_error((now.measured, then.measured), (now.n, then.n))
