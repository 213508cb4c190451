"""What a report's reader has to know beside its figures."""

from __future__ import annotations

from datetime import datetime

from ofa_deploy.deploy.extraction import Extraction, Finalist
from ofa_deploy.deploy.finetuning import SCRATCH, Tuned
from ofa_deploy.deploy.subject import INHERITED
from ofa_deploy.deploy.unused_budget import unused_notes
from ofa_deploy.documents.report_document import PrecisionOffer
from ofa_deploy.latency import Measurement, Row, differences
from ofa_deploy.report.text import accuracy

TOLD = 1.1  # times slower or faster, from which a level is worth a note
OLD_DAYS = 30  # after which a table should be measured again


def notes_on(extraction: Extraction, chosen: Finalist) -> list[str]:
    """Warnings, a sentence or two each."""
    subject, target = extraction.subject, extraction.target
    notes = []
    if subject.random_weights:
        notes.append("Weights are random: this bundle is for studying latency only; accuracy was not measured.")
    elif subject.data is None:
        notes.append(f"Accuracy was not measured: {subject.data_error}")
    elif subject.data.sampled:
        count = len(subject.data.test)
        notes.append(
            f"Accuracy was measured on the {count} test images that came with the supernet: {subject.data.name} is not "
            "at hand here."
        )
    if subject.source is not None:
        notes.append(INHERITED)
    if subject.campaign is not None and subject.predictor is None:
        notes.append(
            f"{subject.space.name} has too few subnets for an accuracy predictor. The search preferred larger ones, "
            "and finalists were compared by their accuracy on validation images alone."
        )
    if chosen.tuned is not None:
        notes.append(_tuning_note(extraction, chosen.tuned))
    if subject.predictor is not None and subject.predictor.error.note:
        its = subject.predictor.error
        notes.append(f"The accuracy was predicted by {its.what}: {its.note}.")
    then, now = chosen.predictor.table.condition, chosen.record.condition
    changed = [f"{key} was {was}, is {is_now}" for key, (was, is_now) in differences(then, now).items()]
    if changed:
        again = f"ofa-deploy profile --target {target.name} --precision {target.precision} --refresh"
        older = then.get("runtime_version") != now["runtime_version"]
        what = "older than its runtime" if older else "from other conditions"
        notes.append(f"The table is {what} ({'; '.join(changed)}); measure it again with: {again}")
    if chosen.point.arch.key in extraction.recalled:
        notes.append(
            "This network was measured for an earlier question. The search for this budget found none that is expected "
            "to be more accurate."
        )
    notes += _level_notes(extraction, chosen)
    notes += _table_notes(extraction, chosen)
    notes += unused_notes(extraction, chosen)
    if extraction.precisions:
        notes.append(_over_precisions(extraction))
    if extraction.fp32 is not None:
        notes.append(_beside_fp32(extraction, extraction.fp32))
    if target.precision == "fp16" and not target.fp16_in_graph:
        notes.append(
            "model.onnx is fp32: the device's builder makes the fp16 engine of it. Accuracy and parity are those of "
            "the fp32 file."
        )
    if chosen.record.flags:
        notes.append(f"The measurement itself is flagged: {', '.join(chosen.record.flags)}.")
    return notes


def _over_precisions(extraction: Extraction) -> str:
    offers = "; ".join(_offer(one) for one in extraction.precisions)
    return f"{extraction.target.precision} was taken, of these: {offers}."


def _offer(one: PrecisionOffer) -> str:
    if one.refused is not None:
        return f"{one.precision} has no answer ({one.refused})"
    judged = "" if one.valid is None else f"{accuracy(one.valid, one.n)} on held-out images, "
    return f"{one.precision} {judged}{one.measured_ms:.4g} ms"


def _beside_fp32(extraction: Extraction, record: Measurement) -> str:
    statistic, precision = extraction.constraints.statistic, extraction.target.precision
    plain, ms = record.ms(statistic), extraction.chosen.measured_ms
    verdict = f"{plain / ms:.2f} times as fast" if ms < plain else "not faster"
    return f"{precision} is {verdict}: {ms:.4g} ms, against {plain:.4g} ms of the same subnet in fp32."


def _tuning_note(extraction: Extraction, tuned: Tuned) -> str:
    facts, how = tuned.facts, "from scratch" if tuned.facts.state == SCRATCH else "on"
    count = sum(finalist.tuned is not None for finalist in extraction.finalists)
    before, after, n = facts.before, facts.after, facts.images
    valid = f"validation {accuracy(before.valid, n.valid)} to {accuracy(after.valid, n.valid)}"
    test = f"test {accuracy(before.test, n.test)} to {accuracy(after.test, n.test)}"
    return (
        f"{count} finalists were trained {how} for {facts.epochs} epochs after the search, and this one was best on "
        f"held-out images: {valid}, {test}. Latency was measured with inherited weights: the graph is the same."
    )


def _level_notes(extraction: Extraction, chosen: Finalist) -> list[str]:
    """Where the device is much slower or faster than when it was profiled, or too disturbed for a promise."""
    level = chosen.level
    if level is None:
        return []
    quiet = Row.of(chosen.record).best
    factor, low, high = level.factor(quiet)
    notes = []
    if not 1 / TOLD < factor < TOLD:
        why = f" ({'; '.join(level.reasons)})" if level.reasons else ""
        notes.append(
            f"The device took {factor:.2f} times as long as when it was profiled at {level.profiled_at} ({low:.2f} to "
            f"{high:.2f}){why}."
        )
    if level.disturbed:
        notes.append(
            f"The device is too disturbed to promise anything now: repeated measurements differ by "
            f"{100 * level.repeats:.0f} %. Undisturbed, this network takes {quiet:.4g} ms."
        )
    return notes


def _table_notes(extraction: Extraction, chosen: Finalist) -> list[str]:
    """What makes the table of the chosen subnet's blocks less than sure."""
    table, target = chosen.predictor.table, extraction.target
    ops = dict.fromkeys(extraction.subject.space.network(chosen.point.arch).unit_keys)
    rows = [table.rows[key] for key in ops if key in table.rows]
    if not rows:
        return [
            "No block was measured on this device: the prediction comes from "
            f"{len(chosen.predictor.evidence)} whole networks and other devices' tables."
        ]
    notes = []
    if flagged := [row for row in rows if row.flags]:
        kinds = ", ".join(sorted({flag for row in flagged for flag in row.flags}))
        notes.append(f"{len(flagged)} of the {len(rows)} table rows used are flagged ({kinds}): see the blocks.")
    times = [row.measured_at for row in rows if row.measured_at]
    days = _days(min(times), chosen.record.measured_at) if times else 0
    if days > OLD_DAYS:
        again = f"ofa-deploy profile --target {target.name} --precision {target.precision} --refresh"
        notes.append(f"The table was measured {days} days before this subnet; measure it again with: {again}")
    return notes


def _days(earlier: str, later: str) -> int:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).days
