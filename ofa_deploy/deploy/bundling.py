"""What an extraction leaves behind: the model, the subnet, the report, and the evidence to recompute it from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_deploy.accuracy.belief import Validation
from ofa_deploy.deploy.baselines import Together
from ofa_deploy.deploy.extraction import Extraction
from ofa_deploy.deploy.report_making import build_report
from ofa_deploy.deploy.verification import check_accuracy, runnable, tested
from ofa_deploy.documents.audit_document import Audit
from ofa_deploy.documents.report_document import Parity, Report
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import PROVENANCE, parity, runner, statement, tensorrt_files, write_bundle
from ofa_deploy.export.evidence import Test
from ofa_deploy.export.runtime import Checked
from ofa_deploy.latency import Measurement
from ofa_deploy.report import render_html, render_markdown

PARITY_IMAGES = 64
MAX_DIFFERENCE = 1e-3  # of a logit between torch and the exported file
EXACT = ("fp32",)  # precisions of which that is asked; of the others, accuracy


def build_bundle(
    extraction: Extraction,
    folder: Path,
    command: str,
    audit: Audit | None = None,
    embedded: bool = False,
) -> Report:
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
    if extraction.target.precision in EXACT and checked.max_abs > MAX_DIFFERENCE:
        raise GateFailed(
            f"the ONNX graph of {arch.key[:12]} differs from torch by {checked.max_abs:.2g} (more than "
            f"{MAX_DIFFERENCE:g}); no bundle was written"
        )
    test = tested(subject, chosen, run, "test")
    ready = runnable(extraction, embedded)
    model = ready.files["model.onnx"]
    shown = Parity(**checked.figures.to_json(), runtime=ran_by)
    report = build_report(extraction, shown, test, command, audit, len(model), ready.preprocessing)
    check_accuracy(report, extraction.target.precision)
    files = {
        "arch.json": _json(arch.to_json()),
        "evidence.json": _json(_evidence(extraction, checked, test, ready.answers, audit)),
        "report.json": _json(report.to_json()),
        "report.md": render_markdown(report).encode(),
        "report.html": render_html(report).encode(),
        **ready.files,
    }
    if subject.predictor:
        files["accuracy_predictor.safetensors"] = subject.predictor.to_bytes()
    files |= tensorrt_files(extraction.target, model, chosen.record.condition)
    inputs = {
        "supernet": subject.sha256,
        "latency table": chosen.predictor.table.sha256,
        "measurement": _digest(_repeatable(chosen.record)),
        "audit": _digest(audit.to_json()) if audit else None,
    }
    files[PROVENANCE] = _json(statement(files, report, inputs, chosen.record.measured_at))
    write_bundle(folder, files, report.provenance.to_json() | {"inputs_sha256": inputs})
    return report


def _evidence(
    extraction: Extraction,
    checked: Checked,
    test: Test | None,
    samples: Mapping[str, int],
    audit: Audit | None,
) -> dict[str, object]:
    """What the report's figures follow from; ``export.evidence`` says what of it is read again."""
    chosen = extraction.chosen
    return {
        "measurement": _repeatable(chosen.record),
        "finalists": [_repeatable(record) for f in extraction.finalists for record in f.records],
        "front": [point.arch.to_json() for point in extraction.result.front],
        "test": test,
        "validation": {f.point.arch.key: _counted(f.valid) for f in extraction.finalists if f.valid},
        "samples": samples,
        "level": chosen.level.now.to_json() if chosen.level else None,
        "parity": {"torch": checked.torch.tolist(), "onnx": checked.onnx.tolist()},
        "latency_model": chosen.predictor.to_json(),
        "audit": audit.to_json() if audit else None,
        "fp32": _repeatable(extraction.fp32) if extraction.fp32 else None,
        **({} if extraction.beside is None else {"baselines": _beside(extraction.beside)}),
    }


def _beside(beside: Together) -> dict[str, object]:
    """Measurements of hand-picked networks and of the answer in the same rounds, and of how many test images their
    files found the class."""
    counts = [Validation(one.accuracy or 0.0, one.n or 0) for one in beside.networks]
    return {
        "networks": [_repeatable(record) for record in beside.records],
        "ours": _repeatable(beside.ours[0]),
        "test": [_counted(count) for count in counts],
    }


def _repeatable(record: Measurement) -> dict[str, Any]:
    """A measurement; a simulated device's without the names of the run, since every run of it says the same."""
    return (record.without("run", "item", "id") if record.simulated else record).to_json()


def _counted(valid: Validation) -> dict[str, int]:
    return {"correct": round(valid.accuracy * valid.n), "n": valid.n}


def _digest(value: object) -> str:
    return hashlib.sha256(_json(value)).hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
