"""An extraction's report, made of the records of its parts."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import ofa_deploy
from ofa_deploy.accuracy.belief import Posterior
from ofa_deploy.blocks import Network
from ofa_deploy.deploy.audits import audit_command
from ofa_deploy.deploy.baselines import Together, budget_now
from ofa_deploy.deploy.earlier_answers import ran_under
from ofa_deploy.deploy.extraction import Extraction, Finalist
from ofa_deploy.deploy.notes import notes_on
from ofa_deploy.deploy.subject import subject_facts
from ofa_deploy.deploy.verification import share_of
from ofa_deploy.documents.audit_document import Audit, AuditedNetwork, DeviceLevel, TimedNetwork
from ofa_deploy.documents.baselines_document import ReportBaselines
from ofa_deploy.documents.preprocessing_document import Preprocessing
from ofa_deploy.documents.report_document import (
    Accuracy,
    BlockRow,
    Budget,
    FinalistRow,
    FrontPoint,
    Latency,
    Measured,
    Parity,
    Provenance,
    Report,
    ReportVerdict,
    SearchTold,
    SubnetFacts,
)
from ofa_deploy.export import git_commit
from ofa_deploy.export.evidence import Test
from ofa_deploy.latency import Row, left_out
from ofa_deploy.report import SIMULATED
from ofa_deploy.report.baseline_verdict import compared
from ofa_deploy.space import network_macs, network_memory, network_params
from ofa_deploy.terms import BOUNDS


def build_report(
    extraction: Extraction,
    checked: Parity,
    test: Test | None,
    command: str,
    audit: Audit | None,
    file_bytes: int,
    preprocessing: Preprocessing,
) -> Report:
    """The report.

    Args:
        checked: how far the file's logits are from torch's.
        test: what ``tested`` found.
        command: what repeats the extraction.
        audit: of the predictions that it rests on.
        file_bytes: of ``model.onnx``.
    """
    subject, target, chosen = extraction.subject, extraction.target, extraction.chosen
    bounds, record = extraction.constraints, chosen.record
    network = subject.space.network(chosen.point.arch)
    options = {"precision": target.precision, **subject.audit_options}
    report = Report(
        schema=1,
        target=ran_under(target.name, record.condition).model_copy(update={"facts": record.facts}),
        budget=Budget(max_ms=bounds.max_ms, statistic=bounds.statistic, confidence=bounds.confidence),
        constraints={name: getattr(bounds, name) for name in BOUNDS if name != "max_ms"},
        subnet=_subnet(extraction, network),
        accuracy=_accuracy(extraction, test),
        latency=_latency(extraction, network),
        level=_level(chosen, network),
        parity=checked,
        verdict=_verdict(extraction),
        audit=audit.figures if audit else None,
        audit_command=audit_command(target, subject.space, bounds.statistic, options),
        networks=_networks(extraction, audit),
        finalists=[_finalist(one) for one in extraction.finalists],
        front=[
            FrontPoint(key=p.arch.key, latency_ms=p.latency_ms, upper_ms=p.upper_ms, accuracy=p.accuracy)
            for p in extraction.result.front
            if subject.predictor is not None
        ],
        search=SearchTold.model_validate(
            {name: getattr(extraction.result, name) for name in ("strategy", "course", "acted")}
        ),
        blocks=_blocks(extraction, network),
        precisions=extraction.precisions,
        cells=subject.found,
        notes=notes_on(extraction, chosen),
        command=command,
        provenance=_provenance(extraction),
        size_bytes=file_bytes,
        preprocessing=preprocessing,
    )
    if extraction.beside is None:
        return report
    return report.model_copy(update={"baselines": _baselines(extraction.beside, report)})


def _baselines(beside: Together, report: Report) -> ReportBaselines:
    """The subnet beside hand-picked networks."""
    then, (record,) = report.latency.measured(report.budget.statistic), beside.ours
    ours = ReportBaselines(
        accuracy=report.accuracy.measured,
        n=report.accuracy.n,
        **budget_now(report.budget, then, record),
        networks=beside.networks,
    )
    return compared(beside.networks, ours)


def _subnet(extraction: Extraction, network: Network) -> SubnetFacts:
    arch, target = extraction.chosen.point.arch, extraction.target
    return SubnetFacts(
        key=arch.key,
        arch=arch.to_json(),
        macs=network_macs(network),
        params=network_params(network),
        memory_mb=network_memory(network, target.batch, target.precision) / 1e6,
    )


def _accuracy(extraction: Extraction, test: Test | None) -> Accuracy:
    subject, chosen = extraction.subject, extraction.chosen
    measured = None if test is None else share_of(test["labels"], test["predicted"])
    of_torch = None if test is None else share_of(test["labels"], test["torch"])
    return Accuracy(
        predicted=chosen.point.accuracy if subject.predictor else None,
        predictor_error=subject.predictor.error if subject.predictor else None,
        **_posterior(chosen.posterior),
        valid=chosen.valid.accuracy if chosen.valid else None,
        valid_n=chosen.valid.n if chosen.valid else 0,
        before_tuning=chosen.tuned.facts.before if chosen.tuned else None,
        measured=measured,
        torch=of_torch,
        drop=None if measured is None or of_torch is None else of_torch - measured,
        dataset=subject.recipe.data.name.replace("_", "-") if subject.recipe else None,
        split="test",
        n=0 if test is None else len(test["labels"]),
    )


def _latency(extraction: Extraction, network: Network) -> Latency:
    chosen, record = extraction.chosen, extraction.chosen.record
    budget, statistic = extraction.constraints.max_ms, extraction.constraints.statistic
    parts = {"work_ms": record.work_ms, "waiting_ms": record.waiting_ms}  # where the device tells them apart
    return Latency(
        predicted_ms=chosen.predicted_ms,
        std_ms=chosen.std_ms,
        upper_ms=chosen.point.upper_ms,
        table_ms=chosen.table_ms,
        sessions_ms=[record.ms(statistic) for record in chosen.records],
        session_std=extraction.session_std,
        interval_ms=list(extraction.interval_ms),
        measured_ms=Measured(p50=record.p50, p90=record.p90, p99=record.p99, n=record.n, cov=record.cov, se=record.se),
        error_pct=100 * (chosen.predicted_ms / chosen.measured_ms - 1),
        undisturbed_ms=Row.of(record).best,
        **{name: ms for name, ms in parts.items() if ms is not None},
        as_measured_ms=chosen.at(network, chosen.level),
        as_profiled_ms=chosen.at(network, None),
        fits=None if budget is None else chosen.measured_ms <= budget,
    )


def _level(chosen: Finalist, network: Network) -> DeviceLevel | None:
    """How fast the device was, beside when it was profiled; None where that is not known."""
    if chosen.level is not None:
        undisturbed = float(chosen.predictor.undisturbed([network])[0])
        return DeviceLevel.model_validate(chosen.level.told(undisturbed).to_json())
    if not chosen.record.simulated:
        return None
    at = chosen.record.measured_at
    return DeviceLevel(
        factor=1.0,
        low=1.0,
        high=1.0,
        profiled_at=at,
        measured_at=at,
        curve=[],
        repeatability=0.0,
        disturbed=False,
        reasons=["a simulation is as fast in every hour"],
    )


def _verdict(extraction: Extraction) -> ReportVerdict:
    chosen = extraction.chosen
    budget, statistic = extraction.constraints.max_ms, extraction.constraints.statistic
    how = "SIMULATED" if chosen.record.simulated else "measured"
    measured = f"{how} {statistic} {chosen.measured_ms:.3f} ms"
    if budget is None:
        return ReportVerdict(status="not measured", text=f"no latency budget was asked for; {measured}")
    fits = chosen.measured_ms <= budget
    sign = "≤" if fits else ">"
    return ReportVerdict(status="fits" if fits else "over", text=f"{measured} {sign} budget {budget:g} ms")


def _posterior(known: Posterior | None) -> dict[str, float | None]:
    """The accuracy that is believed, with its 95 % interval."""
    mean, low, high = known or (None, None, None)
    return {"posterior": mean, "low": low, "high": high}


def _finalist(finalist: Finalist) -> FinalistRow:
    valid = finalist.valid.accuracy if finalist.valid else None
    return FinalistRow(
        key=finalist.point.arch.key,
        arch=finalist.point.arch.to_json(),
        predicted_ms=finalist.predicted_ms,
        std_ms=finalist.std_ms,
        upper_ms=finalist.point.upper_ms,
        table_ms=finalist.table_ms,
        measured_ms=finalist.measured_ms,
        predicted_accuracy=finalist.point.accuracy,
        **_posterior(finalist.posterior),
        valid_accuracy=valid,
        valid_n=finalist.valid.n if finalist.valid else 0,
        inherited_accuracy=finalist.tuned.facts.before.valid if finalist.tuned else valid,
        tuned=finalist.tuned is not None,
    )


def _networks(extraction: Extraction, audit: Audit | None) -> list[TimedNetwork]:
    """Predicted against measured: the audit's networks and the finalists as predicted before they were measured, and
    the other networks that the model had been fitted on, each as predicted without it."""
    chosen, model = extraction.chosen, extraction.chosen.predictor
    points = [_timed("audit", one) for one in (audit.networks if audit else ())]
    audited = {point.key for point in points}
    for key, mean, std in zip(model.evidence, *left_out(model), strict=True):
        if key in audited:
            continue
        row = model.table.networks[key]
        points.append(
            TimedNetwork(
                key=key,
                role="evidence",
                predicted_ms=float(mean),
                std_ms=float(std),
                table_ms=model.table.known_total(row.ops, model.statistic),
                measured_ms=getattr(row, model.statistic),
            )
        )
    return points + [_timed("chosen" if f is chosen else "finalist", _finalist(f)) for f in extraction.finalists]


def _timed(role: str, row: AuditedNetwork | FinalistRow) -> TimedNetwork:
    times = {"predicted_ms": row.predicted_ms, "std_ms": row.std_ms}
    return TimedNetwork(key=row.key, role=role, **times, table_ms=row.table_ms, measured_ms=row.measured_ms)


def _blocks(extraction: Extraction, network: Network) -> list[BlockRow]:
    """The chosen subnet's blocks: alone, in the model, and what the model makes of the difference between the subnet's
    prediction and its measurement."""
    model = extraction.chosen.predictor
    effects, learned = model.effects, model.learned(Row.of(extraction.chosen.record)).effects
    total = sum(effects[unit.op.key] for unit in network.units)
    rows = [model.table.rows.get(unit.op.key) for unit in network.units]
    return [
        BlockRow(
            name=unit.name,
            op=unit.op.key,
            table_ms=getattr(row, model.statistic) if row else None,
            posterior_ms=effects[unit.op.key],
            residual_ms=learned[unit.op.key] - effects[unit.op.key],
            share=effects[unit.op.key] / total,
            flags=list(row.flags) if row else [],
        )
        for unit, row in zip(network.units, rows, strict=True)
    ]


def _provenance(extraction: Extraction) -> Provenance:
    chosen, tuned, simulated = extraction.chosen, extraction.chosen.tuned, extraction.chosen.record.simulated
    return Provenance(
        **subject_facts(extraction.subject),
        weights={k: v for k, v in tuned.facts.to_json().items() if k != "arch"} if tuned else None,
        seed=extraction.seed,
        git_commit=git_commit(Path.cwd()),
        target=extraction.target.model_dump(mode="json"),
        simulated=simulated,
        latencies=SIMULATED if simulated else "measured",
        latency_table_sha256=chosen.predictor.table.sha256,
        measured_at=chosen.record.measured_at,
        evaluations=extraction.result.evaluations,
        versions={
            "ofa-deploy": ofa_deploy.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )
