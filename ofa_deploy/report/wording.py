"""What a report says, in words: the verdict and the tables that Markdown and HTML share."""

from __future__ import annotations

from typing import NamedTuple

from ofa_deploy.documents.audit_document import DeviceLevel
from ofa_deploy.documents.report_document import Believed, FinalistRow, Report
from ofa_deploy.report.text import (
    MINUS,
    NOT_MEASURED,
    NOT_PREDICTED,
    accuracy,
    count,
    ms,
    pct,
    plain,
    predicted,
    signed_pct,
    size,
    within,
)

SIMULATED = "SIMULATED: these latencies come from a simulation, not from a device."
HARDLY = 0.01  # of the work: shorter waits are not worth a figure
HEADLINES = {"fits": "Fits the budget", "over": "Over the budget"}


class Verdict(NamedTuple):
    """The answer.

    Attributes:
        status: ``fits``, ``over`` or ``open``.
        headline: in three words.
        lines: in numbers.
    """

    status: str
    headline: str
    lines: list[str]


def simulated(report: Report) -> bool:
    """Whether any latency of the report is simulated."""
    return bool(report.target.simulated)


def verdict(report: Report) -> Verdict:
    """Whether the budget holds, by how much, and how good the prediction was."""
    status = _status(report)
    headline = HEADLINES.get(status) or ("No latency budget" if report.budget.max_ms is None else "Not measured")
    lines = [_measurement(report), _prediction(report), _accuracy(report), _trust(report)]
    return Verdict(status, headline, [*lines, report.baselines.text] if report.baselines else lines)


def _status(report: Report) -> str:
    stated, fits = report.verdict.status, report.latency.fits
    if stated in HEADLINES:
        return stated
    return "open" if fits is None else "fits" if fits else "over"


def _measurement(report: Report) -> str:
    budget, name = report.budget.max_ms, report.budget.statistic
    measured = report.latency.measured(name)
    if measured is None:
        bound = "" if budget is None else f"; budget {ms(budget)}"
        return report.verdict.text or f"latency not measured{bound}"
    how = "SIMULATED" if simulated(report) else "measured"
    said = f"{how} {name} {ms(measured)}{_interval(report)}"
    if not budget:
        return said
    sign, side = ("≤", "below") if measured <= budget else (">", "above")
    slack = 100 * abs(1 - measured / budget)
    return f"{said} {sign} budget {ms(budget)} ({slack:.1f} % {side})"


def _interval(report: Report) -> str:
    """How sure the measurement is."""
    if len(report.latency.interval_ms) != 2:
        return ""
    low, high = (ms(end).removesuffix(" ms") for end in report.latency.interval_ms)
    return f" (95 %: {low} to {high})"


def _prediction(report: Report) -> str:
    predicted, error = report.latency.predicted_ms, report.latency.error_pct
    if predicted is None:
        return "latency not predicted"
    return f"predicted {ms(predicted)}" + ("" if error is None else f", error {signed_pct(error)}")


def _accuracy(report: Report) -> str:
    found = report.accuracy
    text = f"accuracy {accuracy(found.measured, found.n)}"
    if found.posterior is not None:
        return f"{text}, expected {expected(found)}"
    guess = predicted(found.predicted, found.predictor_error, "")
    return f"{text}, predicted {guess}" if guess else text


def _trust(report: Report) -> str:
    """How far the prediction can be trusted."""
    audit, command = report.audit, report.audit_command
    if audit is not None and audit.verdict:
        day = "in a simulation" if simulated(report) else f"on {(audit.measured_at or 'an unknown day')[:10]}"
        warned = "⚠ " if audit.status == "not trusted" else ""
        return f"{warned}predictions audited with {plain(audit.n_heldout)} held-out networks {day} – {audit.verdict}"
    return "predictions not audited" + (f"; see how far to trust them with: {command}" if command else "")


def condition_line(report: Report) -> str:
    """The conditions of a measurement in one line."""
    target = report.target
    shown = [target.name, target.runtime, target.provider, target.precision]
    shown += [_said("batch {}", plain(target.batch, "")), _said("threads {}", plain(target.threads, ""))]
    when = None if simulated(report) else report.provenance.measured_at
    return " · ".join(filter(None, [*shown, report.budget.statistic, when]))


def figures(report: Report) -> list[tuple[str, str, str]]:
    """The figures one looks for first: name, value, remark."""
    return [*_latencies(report), *_accuracies(report), *_costs(report)]


def _latencies(report: Report) -> list[tuple[str, str, str]]:
    latency, name = report.latency, report.budget.statistic
    took, measured, confidence = latency.measured(name), latency.measured_ms, pct(report.budget.confidence, "", 0)
    tail = []
    if measured is not None:
        timings = "" if measured.n is None else f"{measured.n:,.0f}"
        tail = [_said("p90 {}", ms(measured.p90, "")), _said("{} timings", timings)]
        tail.append(_said("spread {}", pct(measured.cov, "", 1)))
    bound = [_said("at most {}", ms(latency.upper_ms, "")), _said("with {} confidence", confidence)]
    naive = signed_pct(100 * (latency.table_ms / took - 1)) if took and latency.table_ms is not None else ""
    return [
        (f"{'SIMULATED' if simulated(report) else 'Measured'} {name}", ms(took), _listed(tail)),
        ("Predicted latency", ms(latency.predicted_ms, NOT_PREDICTED), " ".join(filter(None, bound))),
        *_work(report),
        ("Prediction error", signed_pct(latency.error_pct), _said("sum of its blocks: {}", naive)),
    ]


def _work(report: Report) -> list[tuple[str, str, str]]:
    """What it takes undisturbed, and how much of the measured time was waiting for a core."""
    quiet, work, waiting = (report.latency.undisturbed_ms, report.latency.work_ms, report.latency.waiting_ms)
    if quiet is None or simulated(report):
        return []
    told = ""
    if waiting is not None and work:
        waited = f"{ms(waiting)} of waiting" if waiting > HARDLY * work else "hardly any waiting"
        told = f"{ms(work)} of work, {waited} for a core"
    return [("Undisturbed latency", ms(quiet), told)]


def _accuracies(report: Report) -> list[tuple[str, str, str]]:
    found, error = report.accuracy, report.accuracy.predictor_error
    dataset = f"{found.dataset or ''} {found.split or ''}".strip()
    predictor = []
    if error is not None:
        rmse = "" if error.rmse is None else f"{100 * error.rmse:.2f}"
        predictor.append(_said("predictor's error {} points", rmse))
        predictor.append(_said("on {} held-out networks", plain(error.n_heldout, "")))
    table = [
        ("Accuracy", accuracy(found.measured, found.n), dataset if found.measured is not None else ""),
        *_beside_torch(report),
    ]
    if found.posterior is not None:
        table.append(("Expected accuracy", expected(found), f"from {_sources(report)}; the choice rests on it"))
    if found.valid is not None:
        table.append(("Validation accuracy", accuracy(found.valid, found.valid_n), "held-out training images"))
    return [
        *table,
        ("Predicted accuracy", predicted(found.predicted, error), " ".join(filter(None, predictor))),
    ]


def _sources(report: Report) -> str:
    """What the expected accuracy comes from: a prediction counts if it is about the weights that were deployed."""
    found, weights = report.accuracy, report.provenance.supernet_sha256
    its = found.predictor_error.supernet if found.predictor_error else None
    counts = its is not None and its == weights and found.before_tuning is None
    return " and ".join(["the prediction"] * counts + ["the validation"] * (found.valid is not None))


def expected(found: Believed, absent: str = "–") -> str:
    """The expected accuracy of a report or a finalist with its 95 % interval."""
    return within(found.posterior, found.low, found.high, absent)


def _beside_torch(report: Report) -> list[tuple[str, str, str]]:
    """The accuracy of the module that the file was written from, on the same images, if measured."""
    of_torch, drop = report.accuracy.torch, report.accuracy.drop
    if of_torch is None or drop is None:
        return []
    precision = report.target.precision or "model"
    lost = "none" if not drop else f"{100 * abs(drop):.2f} points {'lost' if drop > 0 else 'gained'}"
    return [("Torch's accuracy", accuracy(of_torch, report.accuracy.n), f"{lost} in the {precision} file")]


def _costs(report: Report) -> list[tuple[str, str, str]]:
    subnet, parity = report.subnet, report.parity
    alike = [_said("same class for {}", pct(parity.top1_agreement, "", 1))]
    alike.append(_said("PSNR {}", "" if parity.psnr_db is None else f"{parity.psnr_db:.0f} dB"))
    memory = None if subnet.memory_mb is None else 1e6 * subnet.memory_mb
    return [
        ("Multiply-accumulates", count(subnet.macs), "for one image"),
        ("Parameters", count(subnet.params), f"file {size(report.size_bytes)}"),
        ("Memory", size(memory), "weights and live activations; the runtime's own comes on top"),
        ("Parity with torch", _max_abs(parity.max_abs), _listed(alike)),
    ]


def _said(words: str, value: str) -> str:
    return words.format(value) if value else ""


def _listed(parts: list[str]) -> str:
    return ", ".join(filter(None, parts))


def _max_abs(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1e}".replace("e-0", "e-").replace("-", MINUS)


def conditions(report: Report) -> list[tuple[str, str]]:
    """Under which conditions the latencies hold."""
    target, budget, measured_at = report.target, report.budget, report.provenance.measured_at
    shown = [
        ("Target", plain(target.name)),
        ("Runtime", plain(target.runtime)),
        ("Provider", plain(target.provider)),
        ("Precision", plain(target.precision)),
        ("Batch", plain(target.batch)),
        ("Threads", plain(target.threads)),
        ("Power mode", plain(target.power_mode)),
        ("Simulated", plain(target.simulated)),
        ("Statistic", budget.statistic),
        ("Confidence of the bound", pct(budget.confidence, "unknown", 0)),
        *_level(report.level),
        *((key, plain(value)) for key, value in sorted(target.facts.items())),
        *((f"Constraint {key}", count(x)) for key, x in sorted(report.constraints.items()) if x is not None),
    ]
    return shown if measured_at is None or simulated(report) else [*shown, ("Measured at", measured_at)]


def _level(level: DeviceLevel | None) -> list[tuple[str, str]]:
    """How fast the device was, beside when it was profiled, and why, where that is known."""
    if level is None or level.known is None:
        return []
    factor, low, high = level.known
    said = [("Level", f"{factor:.2f} times as slow as when it was profiled (95 %: {low:.2f} to {high:.2f})")]
    said.append(("Profiled at", plain(level.profiled_at)))
    return [*said, ("What the device says", "; ".join(level.reasons))] if level.reasons else said


def preprocessing(report: Report) -> list[str]:
    """What is done to an image before the network sees it, a step each; nothing where older reports do not say."""
    return [] if report.preprocessing is None else report.preprocessing.steps


def subnet(report: Report) -> list[tuple[str, str]]:
    """What was built."""
    genes = [(key.capitalize(), plain(value)) for key, value in report.subnet.arch.items()]
    return [*genes, ("Key", plain(report.subnet.key))]


FINALIST_COLUMNS = (
    "subnet",
    "predicted",
    "upper bound",
    "sum of blocks",
    "measured",
    "error",
    "accuracy, validation",
    "accuracy, expected",
)


def finalists(report: Report) -> list[tuple[bool, list[str]]]:
    """The subnets that were measured before one was chosen: whether it is the chosen one, and its cells."""
    return [(row.key == report.subnet.key, _finalist(row)) for row in report.finalists]


def _finalist(row: FinalistRow) -> list[str]:
    forecast, measured = row.predicted_ms, row.measured_ms
    error = 100 * (forecast / measured - 1) if forecast is not None and measured else None
    seen = row.accuracy if row.valid_accuracy is None else row.valid_accuracy
    cells = [ms(value, "–") for value in (forecast, row.upper_ms, row.table_ms)]
    return [short(row.key), *cells, ms(measured), signed_pct(error, "–"), accuracy(seen, row.valid_n), expected(row)]


def short(key: str | None) -> str:
    """The first characters of a subnet's key."""
    return plain(key)[:10]
