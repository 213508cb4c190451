"""What an extraction leaves behind: the model, the subnet, the report, and the evidence to recompute it from."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import ofa_deploy
from ofa_deploy.deploy.extract import Extraction, Finalist
from ofa_deploy.deploy.subject import subject_facts
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import parity, run_onnx, write_bundle
from ofa_deploy.latency import differences
from ofa_deploy.report import render_html, render_markdown
from ofa_deploy.search.problem import BOUNDS
from ofa_deploy.space import network_macs, network_memory, network_params

PARITY_IMAGES = 64
MAX_DIFFERENCE = 1e-3  # of a logit between torch and the exported file


def build_bundle(extraction: Extraction, folder: Path, command: str) -> dict[str, Any]:
    """Verify the chosen subnet, and write its bundle; an older bundle there is replaced when the new one is complete.

    Args:
        command: what repeats this extraction.

    Returns:
        The report, as in ``report.json``.
    """
    chosen, subject = extraction.chosen, extraction.subject
    arch = chosen.point.arch
    checked = parity(chosen.subnet, chosen.onnx, subject.images(arch, PARITY_IMAGES))
    if checked["max_abs"] > MAX_DIFFERENCE:
        raise GateFailed(
            f"the ONNX graph of {arch.key[:12]} differs from torch by {checked['max_abs']:.2g} (more than "
            f"{MAX_DIFFERENCE:g}); no bundle was written"
        )
    test = subject.test(lambda images: run_onnx(chosen.onnx, [images]), arch)
    evidence = {
        "measurement": chosen.record,
        "finalists": [record for f in extraction.finalists for record in f.records],
        "front": [point.arch.to_json() for point in extraction.result.front],
        "test": test,
        "parity": {"torch": checked["torch"].tolist(), "onnx": checked["onnx"].tolist()},
        "latency_model": chosen.predictor.to_json(),
    }
    report = build_report(extraction, checked, test, command)
    files = {
        "model.onnx": chosen.onnx,
        "arch.json": _json(arch.to_json()),
        "evidence.json": _json(evidence),
        "report.json": _json(report),
        "report.md": render_markdown(report).encode(),
        "report.html": render_html(report).encode(),
    }
    if subject.predictor:
        files["accuracy_predictor.safetensors"] = subject.predictor.to_bytes()
    write_bundle(folder, files, report["provenance"])
    return report


def build_report(
    extraction: Extraction, checked: dict[str, Any], test: dict[str, Any] | None, command: str
) -> dict[str, Any]:
    """The report as a JSON object; see the schema in the README."""
    subject, target, chosen = extraction.subject, extraction.target, extraction.chosen
    point, record = chosen.point, chosen.record
    network, bounds = subject.space.network(point.arch), extraction.constraints
    condition = record["condition"]
    return {
        "schema": 1,
        "target": {
            "name": target.name,
            "runtime": f"{condition['runtime']} {condition['runtime_version']}",
            "provider": condition["provider"],
            "precision": condition["precision"],
            "batch": condition["batch"],
            "threads": condition["threads"],
            "power_mode": condition.get("power_mode", "unknown"),
            "simulated": condition["simulated"],
            "facts": record["facts"],
        },
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
            "sessions_ms": [record[bounds.statistic] for record in chosen.records],
            "session_std": extraction.session_std,
            "interval_ms": list(extraction.interval_ms),
            "measured_ms": {name: record[name] for name in ("p50", "p90", "p99", "n", "cov", "se")},
            "error_pct": 100 * (chosen.predicted_ms / chosen.measured_ms - 1),
            "fits": None if bounds.max_ms is None else chosen.measured_ms <= bounds.max_ms,
        },
        "parity": {key: checked[key] for key in ("max_abs", "top1_agreement", "n")},
        "verdict": _verdict(extraction, chosen),
        "networks": _networks(extraction),
        "finalists": [_finalist(f) for f in extraction.finalists],
        "front": [
            {"key": p.arch.key, "latency_ms": p.latency_ms, "upper_ms": p.upper_ms, "accuracy": p.accuracy}
            for p in extraction.result.front
            if subject.predictor is not None
        ],
        "blocks": _blocks(extraction, chosen),
        "notes": _notes(extraction, chosen),
        "command": command,
        "size_bytes": len(chosen.onnx),
        "provenance": {
            **subject_facts(subject),
            "seed": extraction.seed,
            "target": target.model_dump(mode="json"),
            "latency_table_sha256": chosen.predictor.table.to_json()["sha256"],
            "measured_at": record["measured_at"],
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


def _accuracy(extraction: Extraction, chosen: Finalist, test: dict[str, Any] | None) -> dict[str, Any]:
    subject = extraction.subject
    measured = None if test is None else float(np.mean(np.equal(test["labels"], test["predicted"])))
    return {
        "predicted": chosen.point.accuracy if subject.predictor else None,
        "predictor_error": subject.predictor.error if subject.predictor else None,
        "valid": chosen.valid_accuracy,
        "measured": measured,
        "dataset": subject.recipe.data.name.replace("_", "-") if subject.recipe else None,
        "split": "test",
        "n": 0 if test is None else len(test["labels"]),
    }


def _verdict(extraction: Extraction, chosen: Finalist) -> dict[str, str]:
    budget, measured = (
        extraction.constraints.max_ms,
        f"measured {extraction.constraints.statistic} {chosen.measured_ms:.3f} ms",
    )
    if budget is None:
        return {"status": "not measured", "text": f"no latency budget was asked for; {measured}"}
    fits = chosen.measured_ms <= budget
    sign = "≤" if fits else ">"
    return {"status": "fits" if fits else "over", "text": f"{measured} {sign} budget {budget:g} ms"}


def _finalist(finalist: Finalist) -> dict[str, Any]:
    return {
        "key": finalist.point.arch.key,
        "arch": finalist.point.arch.to_json(),
        "predicted_ms": finalist.predicted_ms,
        "std_ms": finalist.std_ms,
        "upper_ms": finalist.point.upper_ms,
        "table_ms": finalist.table_ms,
        "measured_ms": finalist.measured_ms,
        "predicted_accuracy": finalist.point.accuracy,
        "valid_accuracy": finalist.valid_accuracy,
    }


def _networks(extraction: Extraction) -> list[dict[str, Any]]:
    """Predicted against measured: finalists as predicted before they were measured, and the networks that the model
    had been fitted on, each as predicted without it."""
    points, chosen = [], extraction.chosen
    table = chosen.predictor.table
    for key in chosen.predictor.evidence:
        row = table.networks[key]
        mean, std = chosen.predictor.without(key).predict_ops([row.ops])
        points.append(
            {
                "key": key,
                "role": "evidence",
                "predicted_ms": float(mean[0]),
                "std_ms": float(std[0]),
                "table_ms": table.total(row.ops, chosen.predictor.statistic),
                "measured_ms": getattr(row, chosen.predictor.statistic),
            }
        )
    for finalist in extraction.finalists:
        role = "chosen" if finalist is chosen else "finalist"
        names = ("key", "predicted_ms", "std_ms", "table_ms", "measured_ms")
        points.append({"role": role, **{name: _finalist(finalist)[name] for name in names}})
    return points


def _blocks(extraction: Extraction, chosen: Finalist) -> list[dict[str, Any]]:
    network = extraction.subject.space.network(chosen.point.arch)
    rows, effects = chosen.predictor.table.rows, chosen.predictor.effects
    keys = chosen.predictor.table.row_keys(network)
    total = sum(effects[key] for key in keys)
    return [
        {
            "name": name,
            "op": op.key,
            "table_ms": getattr(rows[key], chosen.predictor.statistic),
            "posterior_ms": effects[key],
            "share": effects[key] / total,
            "flags": list(rows[key].flags),
        }
        for name, op, key in zip(network.names, network.ops, keys, strict=True)
    ]


def _notes(extraction: Extraction, chosen: Finalist) -> list[str]:
    subject, bounds = extraction.subject, extraction.constraints
    notes = []
    if subject.supernet is None:
        notes.append("Weights are random: this bundle is for studying latency only; accuracy was not measured.")
    elif subject.data is None:
        notes.append(f"Accuracy was not measured: {subject.data_error}")
    then, now = chosen.predictor.table.condition, chosen.record["condition"]
    changed = [f"{key} was {was}, is {is_now}" for key, (was, is_now) in differences(then, now).items()]
    if changed:
        again = f"ofa-deploy profile --target {extraction.target.name} --refresh"
        notes.append(f"The table is from other conditions ({'; '.join(changed)}); measure it again with: {again}")
    if bounds.max_ms is not None and chosen.point.arch == subject.space.largest:
        notes.append("The largest subnet of the space fits: the budget leaves slack that this supernet cannot use.")
    flagged = [b["name"] for b in _blocks(extraction, chosen) if b["flags"]]
    if flagged:
        notes.append(f"Table rows of {', '.join(flagged)} are flagged: they were measured on a busy machine.")
    if chosen.record["flags"]:
        notes.append(f"The measurement itself is flagged: {', '.join(chosen.record['flags'])}.")
    return notes


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
