"""What an extraction leaves behind: the model, the subnet, the report, and the evidence to recompute it from."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import ofa_deploy
from ofa_deploy.accuracy.belief import Posterior, Validation
from ofa_deploy.blocks import Network
from ofa_deploy.deploy.audits import audit_command
from ofa_deploy.deploy.earlier_answers import ran_under
from ofa_deploy.deploy.extract import Extraction, Finalist
from ofa_deploy.deploy.notes import notes_on
from ofa_deploy.deploy.subject import subject_facts
from ofa_deploy.deploy.verification import check_accuracy, runnable, tested
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import PROVENANCE, git_commit, parity, runner, statement, tensorrt_files, write_bundle
from ofa_deploy.latency import Measurement, Row, left_out
from ofa_deploy.report import SIMULATED, render_html, render_markdown
from ofa_deploy.space import network_macs, network_memory, network_params
from ofa_deploy.terms import BOUNDS

PARITY_IMAGES = 64
MAX_DIFFERENCE = 1e-3  # of a logit between torch and the exported file
EXACT = ("fp32",)  # precisions of which that is asked; of the others, accuracy


def build_bundle(
    extraction: Extraction,
    folder: Path,
    command: str,
    audit: Mapping[str, Any] | None = None,
    embedded: bool = False,
) -> dict[str, Any]:
    """Verify the chosen subnet, and write its bundle; an older bundle there is replaced when the new one is complete.

    Args:
        command: what repeats this extraction.
        audit: of the predictions that it rests on, as ``newest_audit`` finds it.
        embedded: add a second model file that has the pre-processing inside.

    Returns:
        The report, as in ``report.json``.

    Raises:
        GateFailed: the exported file differs from torch, or does not run where only its runtime is.
    """
    chosen, subject = extraction.chosen, extraction.subject
    arch = chosen.point.arch
    ran_by, run = runner(extraction.target)
    checked = parity(chosen.subnet, chosen.onnx, subject.images(arch, PARITY_IMAGES), run)
    if extraction.target.precision in EXACT and checked["max_abs"] > MAX_DIFFERENCE:
        raise GateFailed(
            f"the ONNX graph of {arch.key[:12]} differs from torch by {checked['max_abs']:.2g} (more than "
            f"{MAX_DIFFERENCE:g}); no bundle was written"
        )
    test = tested(subject, chosen, run, "test")
    run_with, samples = runnable(extraction, embedded)
    evidence = {
        "measurement": _repeatable(chosen.record),
        "finalists": [_repeatable(record) for f in extraction.finalists for record in f.records],
        "front": [point.arch.to_json() for point in extraction.result.front],
        "test": test,
        "validation": {f.point.arch.key: _counted(f.valid) for f in extraction.finalists if f.valid},
        "samples": samples,
        "level": chosen.level.now.to_json() if chosen.level else None,
        "parity": {"torch": checked["torch"].tolist(), "onnx": checked["onnx"].tolist()},
        "latency_model": chosen.predictor.to_json(),
        "audit": audit,
        "fp32": _repeatable(extraction.fp32) if extraction.fp32 else None,
    }
    report = build_report(extraction, checked, test, command, audit)
    report["size_bytes"] = len(run_with["model.onnx"])
    report["preprocessing"] = json.loads(run_with["preprocessing.json"])
    report["parity"]["runtime"] = ran_by
    check_accuracy(report, extraction.target.precision)
    files = {
        "arch.json": _json(arch.to_json()),
        "evidence.json": _json(evidence),
        "report.json": _json(report),
        "report.md": render_markdown(report).encode(),
        "report.html": render_html(report).encode(),
        **run_with,
    }
    if subject.predictor:
        files["accuracy_predictor.safetensors"] = subject.predictor.to_bytes()
    files |= tensorrt_files(extraction.target, run_with["model.onnx"], chosen.record.condition)
    inputs = {
        "supernet": subject.sha256,
        "latency table": chosen.predictor.table.to_json()["sha256"],
        "measurement": _digest(_repeatable(chosen.record)),
        "audit": _digest(audit) if audit else None,
    }
    files[PROVENANCE] = _json(statement(files, report, inputs, chosen.record.measured_at))
    write_bundle(folder, files, report["provenance"] | {"inputs_sha256": inputs})
    return report


def _repeatable(record: Measurement) -> dict[str, Any]:
    """A measurement; a simulated device's without the names of the run, since every run of it says the same."""
    return (record.without("run", "item", "id") if record.simulated else record).to_json()


def _split(record: Measurement) -> dict[str, float]:
    """Computing and waiting, where the device tells them apart."""
    parts = {"work_ms": record.work_ms, "waiting_ms": record.waiting_ms}
    return {name: ms for name, ms in parts.items() if ms is not None}


def build_report(
    extraction: Extraction,
    checked: dict[str, Any],
    test: dict[str, Any] | None,
    command: str,
    audit: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report as a JSON object; docs/reference/files.md describes it."""
    subject, target, chosen = extraction.subject, extraction.target, extraction.chosen
    point, record = chosen.point, chosen.record
    network, bounds = subject.space.network(point.arch), extraction.constraints
    condition = record.condition
    return {
        "schema": 1,
        "target": {"name": target.name, **ran_under(condition), "facts": record.facts},
        "budget": {"max_ms": bounds.max_ms, "statistic": bounds.statistic, "confidence": bounds.confidence},
        "constraints": {name: getattr(bounds, name) for name in BOUNDS if name != "max_ms"},
        "subnet": {
            "key": point.arch.key,
            "arch": point.arch.to_json(),
            "macs": network_macs(network),
            "params": network_params(network),
            "memory_mb": network_memory(network, target.batch, target.precision) / 1e6,
        },
        "accuracy": _accuracy(extraction, chosen, test),
        "latency": {
            "predicted_ms": chosen.predicted_ms,
            "std_ms": chosen.std_ms,
            "upper_ms": point.upper_ms,
            "table_ms": chosen.table_ms,
            "sessions_ms": [record.ms(bounds.statistic) for record in chosen.records],
            "session_std": extraction.session_std,
            "interval_ms": list(extraction.interval_ms),
            "measured_ms": {name: getattr(record, name) for name in ("p50", "p90", "p99", "n", "cov", "se")},
            "error_pct": 100 * (chosen.predicted_ms / chosen.measured_ms - 1),
            "undisturbed_ms": Row.of(record).best,
            **_split(record),
            **_at_levels(chosen, network),
            "fits": None if bounds.max_ms is None else chosen.measured_ms <= bounds.max_ms,
        },
        "level": _level(extraction, chosen, network),
        "parity": {key: checked[key] for key in ("max_abs", "psnr_db", "top1_agreement", "n")},
        "verdict": _verdict(extraction, chosen),
        "audit": {k: v for k, v in audit.items() if k not in ("networks", "facts")} if audit else None,
        "audit_command": audit_command(
            target, subject.space, bounds.statistic, {"precision": target.precision, **subject.audit_options}
        ),
        "networks": _networks(extraction, audit),
        "finalists": [_finalist(f) for f in extraction.finalists],
        "front": [
            {"key": p.arch.key, "latency_ms": p.latency_ms, "upper_ms": p.upper_ms, "accuracy": p.accuracy}
            for p in extraction.result.front
            if subject.predictor is not None
        ],
        "search": {name: getattr(extraction.result, name) for name in ("strategy", "course", "acted")},
        "blocks": _blocks(extraction, chosen),
        "precisions": extraction.precisions,
        "cells": subject.found,
        "notes": notes_on(extraction, chosen),
        "command": command,
        "provenance": {
            **subject_facts(subject),
            "weights": {k: v for k, v in chosen.tuned.facts.items() if k != "arch"} if chosen.tuned else None,
            "seed": extraction.seed,
            "git_commit": git_commit(Path.cwd()),
            "target": target.model_dump(mode="json"),
            "simulated": condition["simulated"],
            "latencies": SIMULATED if condition["simulated"] else "measured",
            "latency_table_sha256": chosen.predictor.table.to_json()["sha256"],
            "measured_at": record.measured_at,
            "evaluations": extraction.result.evaluations,
            "versions": {
                "ofa-deploy": ofa_deploy.__version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    }


def _at_levels(chosen: Finalist, network: Network) -> dict[str, float]:
    """The prediction at the level of the rounds in which the network was measured, and at that of the profile: both,
    beside what was predicted before."""
    return {
        "as_measured_ms": chosen.at(network, chosen.level),
        "as_profiled_ms": chosen.at(network, None),
    }


def _level(extraction: Extraction, chosen: Finalist, network: Network) -> dict[str, Any] | None:
    """How fast the device was, beside when it was profiled; None where that is not known."""
    if chosen.level is not None:
        return chosen.level.to_json(float(chosen.predictor.undisturbed([network])[0]))
    if not chosen.record.simulated:
        return None
    at = chosen.record.measured_at
    same = {"factor": 1.0, "low": 1.0, "high": 1.0, "profiled_at": at, "measured_at": at, "curve": []}
    return {**same, "repeatability": 0.0, "disturbed": False, "reasons": ["a simulation is as fast in every hour"]}


def _accuracy(extraction: Extraction, chosen: Finalist, test: dict[str, Any] | None) -> dict[str, Any]:
    subject = extraction.subject
    measured, of_torch = (
        None if test is None else float(np.mean(np.equal(test["labels"], test[name])))
        for name in ("predicted", "torch")
    )
    return {
        "predicted": chosen.point.accuracy if subject.predictor else None,
        "predictor_error": subject.predictor.error if subject.predictor else None,
        **_posterior(chosen.posterior),
        "valid": chosen.valid.accuracy if chosen.valid else None,
        "valid_n": chosen.valid.n if chosen.valid else 0,
        "before_tuning": chosen.tuned.facts["before"] if chosen.tuned else None,
        "measured": measured,
        "torch": of_torch,
        "drop": None if measured is None or of_torch is None else of_torch - measured,
        "dataset": subject.recipe.data.name.replace("_", "-") if subject.recipe else None,
        "split": "test",
        "n": 0 if test is None else len(test["labels"]),
    }


def _posterior(known: Posterior | None) -> dict[str, float | None]:
    """The accuracy that is believed, with its 95 % interval."""
    mean, low, high = known or (None, None, None)
    return {"posterior": mean, "low": low, "high": high}


def _counted(valid: Validation) -> dict[str, int]:
    return {"correct": round(valid.accuracy * valid.n), "n": valid.n}


def _verdict(extraction: Extraction, chosen: Finalist) -> dict[str, str]:
    budget, statistic = extraction.constraints.max_ms, extraction.constraints.statistic
    how = "SIMULATED" if chosen.record.simulated else "measured"
    measured = f"{how} {statistic} {chosen.measured_ms:.3f} ms"
    if budget is None:
        return {"status": "not measured", "text": f"no latency budget was asked for; {measured}"}
    fits = chosen.measured_ms <= budget
    sign = "≤" if fits else ">"
    return {"status": "fits" if fits else "over", "text": f"{measured} {sign} budget {budget:g} ms"}


def _finalist(finalist: Finalist) -> dict[str, Any]:
    valid = finalist.valid.accuracy if finalist.valid else None
    return {
        "key": finalist.point.arch.key,
        "arch": finalist.point.arch.to_json(),
        "predicted_ms": finalist.predicted_ms,
        "std_ms": finalist.std_ms,
        "upper_ms": finalist.point.upper_ms,
        "table_ms": finalist.table_ms,
        "measured_ms": finalist.measured_ms,
        "predicted_accuracy": finalist.point.accuracy,
        **_posterior(finalist.posterior),
        "valid_accuracy": valid,
        "valid_n": finalist.valid.n if finalist.valid else 0,
        "inherited_accuracy": finalist.tuned.facts["before"]["valid"] if finalist.tuned else valid,
        "tuned": finalist.tuned is not None,
    }


def _networks(extraction: Extraction, audit: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Predicted against measured: the audit's networks and the finalists as predicted before they were measured, and
    the other networks that the model had been fitted on, each as predicted without it."""
    chosen = extraction.chosen
    table, names = chosen.predictor.table, ("key", "predicted_ms", "std_ms", "table_ms", "measured_ms")
    points = [{"role": "audit", **{name: one[name] for name in names}} for one in (audit or {}).get("networks", ())]
    audited = {point["key"] for point in points}
    for key, mean, std in zip(chosen.predictor.evidence, *left_out(chosen.predictor), strict=True):
        if key in audited:
            continue
        row = table.networks[key]
        points.append(
            {
                "key": key,
                "role": "evidence",
                "predicted_ms": float(mean),
                "std_ms": float(std),
                "table_ms": table.known_total(row.ops, chosen.predictor.statistic),
                "measured_ms": getattr(row, chosen.predictor.statistic),
            }
        )
    for finalist in extraction.finalists:
        role = "chosen" if finalist is chosen else "finalist"
        points.append({"role": role, **{name: _finalist(finalist)[name] for name in names}})
    return points


def _blocks(extraction: Extraction, chosen: Finalist) -> list[dict[str, Any]]:
    """The chosen subnet's blocks: alone, in the model, and what the model makes of the difference between the subnet's
    prediction and its measurement."""
    network, model = extraction.subject.space.network(chosen.point.arch), chosen.predictor
    effects, learned = model.effects, model.learned(Row.of(chosen.record)).effects
    total = sum(effects[unit.op.key] for unit in network.units)
    rows = [model.table.rows.get(unit.op.key) for unit in network.units]
    return [
        {
            "name": unit.name,
            "op": unit.op.key,
            "table_ms": getattr(row, model.statistic) if row else None,
            "posterior_ms": effects[unit.op.key],
            "residual_ms": learned[unit.op.key] - effects[unit.op.key],
            "share": effects[unit.op.key] / total,
            "flags": list(row.flags) if row else [],
        }
        for unit, row in zip(network.units, rows, strict=True)
    ]


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value)).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
