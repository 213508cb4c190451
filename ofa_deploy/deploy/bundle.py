"""What an extraction leaves behind: the model, the subnet, the report, and the evidence to recompute it from."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import ofa_deploy
from ofa_deploy.deploy.audits import audit_command
from ofa_deploy.deploy.extract import Extraction, Finalist
from ofa_deploy.deploy.finetuning import SCRATCH, Tuned
from ofa_deploy.deploy.subject import INHERITED, subject_facts
from ofa_deploy.errors import GateFailed, OpNotProfiled
from ofa_deploy.export import parity, run_onnx, tensorrt_files, write_bundle
from ofa_deploy.latency import Row, differences
from ofa_deploy.report import SIMULATED, render_html, render_markdown
from ofa_deploy.search.problem import BOUNDS
from ofa_deploy.space import network_macs, network_memory, network_params

PARITY_IMAGES = 64
MAX_DIFFERENCE = 1e-3  # of a logit between torch and the exported file
OLD_DAYS = 30  # after which a table should be measured again


def build_bundle(
    extraction: Extraction, folder: Path, command: str, audit: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Verify the chosen subnet, and write its bundle; an older bundle there is replaced when the new one is complete.

    Args:
        command: what repeats this extraction.
        audit: of the predictions that it rests on, as ``newest_audit`` finds it.

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
        "audit": audit,
    }
    report = build_report(extraction, checked, test, command, audit)
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
    files |= tensorrt_files(extraction.target, chosen.onnx, chosen.record["condition"])
    write_bundle(folder, files, report["provenance"])
    return report


def build_report(
    extraction: Extraction,
    checked: dict[str, Any],
    test: dict[str, Any] | None,
    command: str,
    audit: Mapping[str, Any] | None,
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
        "audit": {k: v for k, v in audit.items() if k not in ("networks", "facts")} if audit else None,
        "audit_command": audit_command(target, subject.space, bounds.statistic),
        "networks": _networks(extraction, audit),
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
            "weights": {k: v for k, v in chosen.tuned.facts.items() if k != "arch"} if chosen.tuned else None,
            "seed": extraction.seed,
            "target": target.model_dump(mode="json"),
            "simulated": condition["simulated"],
            "latencies": SIMULATED if condition["simulated"] else "measured",
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
        "before_tuning": chosen.tuned.facts["before"] if chosen.tuned else None,
        "measured": measured,
        "dataset": subject.recipe.data.name.replace("_", "-") if subject.recipe else None,
        "split": "test",
        "n": 0 if test is None else len(test["labels"]),
    }


def _verdict(extraction: Extraction, chosen: Finalist) -> dict[str, str]:
    budget, statistic = extraction.constraints.max_ms, extraction.constraints.statistic
    how = "SIMULATED" if chosen.record["condition"]["simulated"] else "measured"
    measured = f"{how} {statistic} {chosen.measured_ms:.3f} ms"
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
        "inherited_accuracy": finalist.tuned.facts["before"]["valid"] if finalist.tuned else finalist.valid_accuracy,
    }


def _networks(extraction: Extraction, audit: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Predicted against measured: the audit's networks and the finalists as predicted before they were measured, and
    the other networks that the model had been fitted on, each as predicted without it."""
    chosen = extraction.chosen
    table, names = chosen.predictor.table, ("key", "predicted_ms", "std_ms", "table_ms", "measured_ms")
    points = [{"role": "audit", **{name: one[name] for name in names}} for one in (audit or {}).get("networks", ())]
    audited = {point["key"] for point in points}
    for key in chosen.predictor.evidence:
        if key in audited:
            continue
        row = table.networks[key]
        mean, std = chosen.predictor.without(key).predict_ops([row.ops])
        points.append(
            {
                "key": key,
                "role": "evidence",
                "predicted_ms": float(mean[0]),
                "std_ms": float(std[0]),
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
    effects, learned = model.effects, model.learned(Row.from_record(chosen.record)).effects
    total = sum(effects[op.key] for op in network.ops)
    rows = [model.table.rows.get(op.key) for op in network.ops]
    return [
        {
            "name": name,
            "op": op.key,
            "table_ms": getattr(row, model.statistic) if row else None,
            "posterior_ms": effects[op.key],
            "residual_ms": learned[op.key] - effects[op.key],
            "share": effects[op.key] / total,
            "flags": list(row.flags) if row else [],
        }
        for name, op, row in zip(network.names, network.ops, rows, strict=True)
    ]


def _notes(extraction: Extraction, chosen: Finalist) -> list[str]:
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
    if chosen.tuned is not None:
        notes.append(_tuning_note(extraction, chosen.tuned))
    if subject.predictor is not None and "note" in subject.predictor.error:
        its = subject.predictor.error
        notes.append(f"The accuracy was predicted by {its['what']}: {its['note']}.")
    then, now = chosen.predictor.table.condition, chosen.record["condition"]
    changed = [f"{key} was {was}, is {is_now}" for key, (was, is_now) in differences(then, now).items()]
    if changed:
        again = f"ofa-deploy profile --target {extraction.target.name} --refresh"
        older = then.get("runtime_version") != now["runtime_version"]
        what = "older than its runtime" if older else "from other conditions"
        notes.append(f"The table is {what} ({'; '.join(changed)}); measure it again with: {again}")
    notes += _table_notes(extraction, chosen)
    notes += _slack(extraction, chosen)
    if target.precision == "fp16":
        notes.append(
            "model.onnx is fp32: the device's builder makes the fp16 engine of it. Accuracy and parity are those of "
            "the fp32 file."
        )
    if chosen.record["flags"]:
        notes.append(f"The measurement itself is flagged: {', '.join(chosen.record['flags'])}.")
    return notes


def _tuning_note(extraction: Extraction, tuned: Tuned) -> str:
    facts, how = tuned.facts, "from scratch" if tuned.facts["state"] == SCRATCH else "on"
    count = sum(finalist.tuned is not None for finalist in extraction.finalists)
    changes = [
        f"{name} {100 * facts['before'][split]:.2f} % to {100 * facts['after'][split]:.2f} %"
        for name, split in (("validation", "valid"), ("test", "test"))
    ]
    return (
        f"{count} finalists were trained {how} for {facts['epochs']} epochs after the search, and this one was best on "
        f"held-out images: {', '.join(changes)}. Latency was measured with inherited weights: the graph is the same."
    )


def _slack(extraction: Extraction, chosen: Finalist) -> list[str]:
    """Whether the budget binds at all."""
    space, budget = extraction.subject.space, extraction.constraints.max_ms
    try:
        (largest,), _ = chosen.predictor.predict([space.network(space.largest)])
    except OpNotProfiled:  # measured at lower resolutions only
        return []
    if budget is None or largest > budget:
        return []
    return [
        f"The budget does not bind: the largest subnet of {space.name} takes {largest:.3g} ms of {budget:g} ms "
        "(predicted). The slack is for a larger supernet."
    ]


def _table_notes(extraction: Extraction, chosen: Finalist) -> list[str]:
    """What makes the table of the chosen subnet's blocks less than sure."""
    table, target = chosen.predictor.table, extraction.target.name
    ops = dict.fromkeys(op.key for op in extraction.subject.space.network(chosen.point.arch).ops)
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
    days = _days(min(times), chosen.record["measured_at"]) if times else 0
    if days > OLD_DAYS:
        again = f"ofa-deploy profile --target {target} --refresh"
        notes.append(f"The table was measured {days} days before this subnet; measure it again with: {again}")
    return notes


def _days(earlier: str, later: str) -> int:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).days


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
