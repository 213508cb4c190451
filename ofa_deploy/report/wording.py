"""What a report says, in words: the verdict and the tables that Markdown and HTML share."""

from __future__ import annotations

from typing import Any, NamedTuple

from ofa_deploy.report.text import (
    MINUS,
    NOT_MEASURED,
    NOT_PREDICTED,
    accuracy,
    count,
    get,
    ms,
    number,
    pct,
    plain,
    predicted,
    rows,
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


def simulated(report: dict[str, Any]) -> bool:
    """Whether any latency of the report is simulated."""
    return bool(get(report, "target.simulated"))


def verdict(report: dict[str, Any]) -> Verdict:
    """Whether the budget holds, by how much, and how good the prediction was."""
    status, open_ended = _status(report), number(get(report, "budget.max_ms")) is None
    headline = HEADLINES.get(status) or ("No latency budget" if open_ended else "Not measured")
    return Verdict(status, headline, [_measurement(report), _prediction(report), _accuracy(report), _trust(report)])


def _status(report: dict[str, Any]) -> str:
    stated, fits = get(report, "verdict.status"), get(report, "latency.fits")
    if isinstance(stated, str) and stated in HEADLINES:
        return stated
    return ("fits" if fits else "over") if isinstance(fits, bool) else "open"


def _measurement(report: dict[str, Any]) -> str:
    budget, (measured, name) = number(get(report, "budget.max_ms")), _measured(report)
    if measured is None:
        bound = "" if budget is None else f"; budget {ms(budget)}"
        return plain(get(report, "verdict.text") or f"latency not measured{bound}")
    how = "SIMULATED" if simulated(report) else "measured"
    said = f"{how} {name} {ms(measured)}{_interval(report)}"
    if not budget:
        return said
    sign, side = ("≤", "below") if measured <= budget else (">", "above")
    slack = 100 * abs(1 - measured / budget)
    return f"{said} {sign} budget {ms(budget)} ({slack:.1f} % {side})"


def _measured(report: dict[str, Any]) -> tuple[float | None, str]:
    """The measured latency of the statistic that the budget is about, and its name."""
    name = statistic(report)
    return number(get(report, f"latency.measured_ms.{name}")), name


def statistic(report: dict[str, Any]) -> str:
    """Which latency the budget is about."""
    name = get(report, "budget.statistic")
    return name if name in ("p50", "p90", "p99") else "p50"


def _interval(report: dict[str, Any]) -> str:
    """How sure the measurement is."""
    found = get(report, "latency.interval_ms")
    ends = [number(end) for end in found] if isinstance(found, list) else []
    if len(ends) != 2 or None in ends:
        return ""
    low, high = (ms(end).removesuffix(" ms") for end in ends)
    return f" (95 %: {low} to {high})"


def _prediction(report: dict[str, Any]) -> str:
    predicted = number(get(report, "latency.predicted_ms"))
    if predicted is None:
        return "latency not predicted"
    error = number(get(report, "latency.error_pct"))
    return f"predicted {ms(predicted)}" + ("" if error is None else f", error {signed_pct(error)}")


def _accuracy(report: dict[str, Any]) -> str:
    found = get(report, "accuracy")
    measured = get(found, "measured")
    text = f"accuracy {accuracy(measured, get(found, 'n'))}"
    if number(get(found, "posterior")) is not None:
        return f"{text}, expected {expected(found)}"
    guess = predicted(get(found, "predicted"), get(found, "predictor_error"), "")
    return f"{text}, predicted {guess}" if guess else text


def _trust(report: dict[str, Any]) -> str:
    """How far the prediction can be trusted."""
    if get(report, "audit.verdict"):
        day = (
            "in a simulation"
            if simulated(report)
            else f"on {plain(get(report, 'audit.measured_at'), 'an unknown day')[:10]}"
        )
        tested = f"{plain(get(report, 'audit.n_heldout'))} held-out networks {day}"
        warned = "⚠ " if get(report, "audit.status") == "not trusted" else ""
        return f"{warned}predictions audited with {tested} – {plain(get(report, 'audit.verdict'))}"
    command = get(report, "audit_command")
    return "predictions not audited" + (f"; see how far to trust them with: {plain(command)}" if command else "")


def condition_line(report: dict[str, Any]) -> str:
    """The conditions of a measurement in one line."""
    shown = [plain(get(report, f"target.{name}"), "") for name in ("name", "runtime", "provider", "precision")]
    shown += [_said(f"{name} {{}}", plain(get(report, f"target.{name}"), "")) for name in ("batch", "threads")]
    when = "" if simulated(report) else plain(get(report, "provenance.measured_at"), "")
    return " · ".join(filter(None, [*shown, statistic(report), when]))


def figures(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures one looks for first: name, value, remark."""
    return [*_latencies(report), *_accuracies(report), *_costs(report)]


def _latencies(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    measured, confidence = get(report, "latency.measured_ms"), pct(get(report, "budget.confidence"), "", 0)
    (took, name), table = _measured(report), number(get(report, "latency.table_ms"))
    timings = number(get(measured, "n"))
    tail = [
        _said("p90 {}", ms(get(measured, "p90"), "")),
        _said("{} timings", "" if timings is None else f"{timings:,.0f}"),
        _said("spread {}", pct(get(measured, "cov"), "", 1)),
    ]
    bound = [_said("at most {}", ms(get(report, "latency.upper_ms"), "")), _said("with {} confidence", confidence)]
    naive = signed_pct(100 * (table / took - 1)) if took and table is not None else ""
    return [
        (f"{'SIMULATED' if simulated(report) else 'Measured'} {name}", ms(took), _listed(tail)),
        ("Predicted latency", ms(get(report, "latency.predicted_ms"), NOT_PREDICTED), " ".join(filter(None, bound))),
        *_work(report),
        ("Prediction error", signed_pct(get(report, "latency.error_pct")), _said("sum of its blocks: {}", naive)),
    ]


def _work(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What it takes undisturbed, and how much of the measured time was waiting for a core."""
    quiet, waiting = (number(get(report, f"latency.{name}")) for name in ("undisturbed_ms", "waiting_ms"))
    if quiet is None or simulated(report):
        return []
    work = number(get(report, "latency.work_ms"))
    told = ""
    if waiting is not None and work:
        waited = f"{ms(waiting)} of waiting" if waiting > HARDLY * work else "hardly any waiting"
        told = f"{ms(work)} of work, {waited} for a core"
    return [("Undisturbed latency", ms(quiet), told)]


def _accuracies(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = get(report, "accuracy")
    measured, valid = number(get(found, "measured")), number(get(found, "valid"))
    dataset = f"{plain(get(found, 'dataset'), '')} {plain(get(found, 'split'), '')}".strip()
    error, heldout = (get(found, f"predictor_error.{name}") for name in ("rmse", "n_heldout"))
    predictor = [
        _said("predictor's error {} points", f"{100 * rmse:.2f}" if (rmse := number(error)) is not None else ""),
        _said("on {} held-out networks", plain(heldout, "")),
    ]
    table = [
        ("Accuracy", accuracy(measured, get(found, "n")), dataset if measured is not None else ""),
        *_beside_torch(report),
    ]
    if number(get(found, "posterior")) is not None:
        table.append(("Expected accuracy", expected(found), f"from {_sources(report)}; the choice rests on it"))
    if valid is not None:
        table.append(("Validation accuracy", accuracy(valid, get(found, "valid_n")), "held-out training images"))
    return [
        *table,
        (
            "Predicted accuracy",
            predicted(get(found, "predicted"), get(found, "predictor_error")),
            " ".join(filter(None, predictor)),
        ),
    ]


def _sources(report: dict[str, Any]) -> str:
    """What the expected accuracy comes from: a prediction counts if it is about the weights that were deployed."""
    its, weights = (get(report, path) for path in ("accuracy.predictor_error.supernet", "provenance.supernet_sha256"))
    counts = its is not None and its == weights and get(report, "accuracy.before_tuning") is None
    seen = number(get(report, "accuracy.valid")) is not None
    return " and ".join(["the prediction"] * counts + ["the validation"] * seen)


def expected(found: Any, absent: str = "–") -> str:
    """The expected accuracy of a report or a finalist with its 95 % interval."""
    return within(get(found, "posterior"), get(found, "low"), get(found, "high"), absent)


def _beside_torch(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The accuracy of the module that the file was written from, on the same images, if measured."""
    of_torch, drop = (number(get(report, f"accuracy.{name}")) for name in ("torch", "drop"))
    if of_torch is None or drop is None:
        return []
    precision = plain(get(report, "target.precision"), "model")
    lost = "none" if not drop else f"{100 * abs(drop):.2f} points {'lost' if drop > 0 else 'gained'}"
    return [("Torch's accuracy", accuracy(of_torch, get(report, "accuracy.n")), f"{lost} in the {precision} file")]


def _costs(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    memory, psnr = number(get(report, "subnet.memory_mb")), number(get(report, "parity.psnr_db"))
    agreement = pct(get(report, "parity.top1_agreement"), "", 1)
    alike = [_said("same class for {}", agreement), _said("PSNR {}", "" if psnr is None else f"{psnr:.0f} dB")]
    return [
        ("Multiply-accumulates", count(get(report, "subnet.macs")), "for one image"),
        ("Parameters", count(get(report, "subnet.params")), f"file {size(get(report, 'size_bytes'))}"),
        ("Memory", size(memory and 1e6 * memory), "weights and live activations; the runtime's own comes on top"),
        ("Parity with torch", _max_abs(get(report, "parity.max_abs")), _listed(alike)),
    ]


def _said(words: str, value: str) -> str:
    return words.format(value) if value else ""


def _listed(parts: list[str]) -> str:
    return ", ".join(filter(None, parts))


def _max_abs(value: Any) -> str:
    found = number(value)
    return NOT_MEASURED if found is None else f"{found:.1e}".replace("e-0", "e-").replace("-", MINUS)


CONDITIONS = ("runtime", "provider", "precision", "batch", "threads", "power_mode", "simulated")


def conditions(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Under which conditions the latencies hold."""
    shown = [("Target", plain(get(report, "target.name")))]
    shown += [(name.replace("_", " ").capitalize(), plain(get(report, f"target.{name}"))) for name in CONDITIONS]
    shown.append(("Statistic", plain(get(report, "budget.statistic"))))
    shown.append(("Confidence of the bound", pct(get(report, "budget.confidence"), "unknown", 0)))
    shown += _level(report)
    facts, bounds = get(report, "target.facts"), get(report, "constraints")
    shown += [(key, plain(value)) for key, value in sorted(facts.items())] if isinstance(facts, dict) else []
    if isinstance(bounds, dict):
        shown += [(f"Constraint {key}", count(value)) for key, value in sorted(bounds.items()) if value is not None]
    measured_at = get(report, "provenance.measured_at")
    return shown if measured_at is None or simulated(report) else [*shown, ("Measured at", plain(measured_at))]


def _level(report: dict[str, Any]) -> list[tuple[str, str]]:
    """How fast the device was, beside when it was profiled, and why, where that is known."""
    factor, low, high = (number(get(report, f"level.{name}")) for name in ("factor", "low", "high"))
    if factor is None or low is None or high is None:
        return []
    said = [("Level", f"{factor:.2f} times as slow as when it was profiled (95 %: {low:.2f} to {high:.2f})")]
    said.append(("Profiled at", plain(get(report, "level.profiled_at"))))
    why = get(report, "level.reasons")
    return [*said, ("What the device says", "; ".join(map(plain, why)))] if isinstance(why, list) and why else said


def preprocessing(report: dict[str, Any]) -> list[str]:
    """What is done to an image before the network sees it, a step each; nothing where older reports do not say."""
    found = get(report, "preprocessing.steps")
    return [plain(step) for step in found] if isinstance(found, list) else []


def notes(report: dict[str, Any]) -> list[str]:
    """Warnings."""
    found = get(report, "notes")
    return [plain(note) for note in found] if isinstance(found, list) else []


def subnet(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What was built."""
    arch = get(report, "subnet.arch")
    fields = list(arch.items()) if isinstance(arch, dict) else []
    return [(key.capitalize(), plain(value)) for key, value in fields] + [("Key", plain(get(report, "subnet.key")))]


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


def finalists(report: dict[str, Any]) -> list[tuple[bool, list[str]]]:
    """The subnets that were measured before one was chosen: whether it is the chosen one, and its cells."""
    chosen = get(report, "subnet.key")
    return [(row.get("key") == chosen, _finalist(row)) for row in rows(report, "finalists")]


def _finalist(row: dict[str, Any]) -> list[str]:
    forecast, measured = number(row.get("predicted_ms")), number(row.get("measured_ms"))
    error = 100 * (forecast / measured - 1) if forecast is not None and measured else None
    seen = row.get("valid_accuracy", row.get("accuracy"))
    cells = [ms(row.get(name), "–") for name in ("predicted_ms", "upper_ms", "table_ms")]
    return [
        short(row.get("key")),
        *cells,
        ms(measured),
        signed_pct(error, "–"),
        accuracy(seen, row.get("valid_n")),
        expected(row),
    ]


def short(key: Any) -> str:
    """The first characters of a subnet's key."""
    return plain(key)[:10]
