"""What a model file is held against before it ships: its torch module on the test split, and a machine without us."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.deploy.extract import Extraction, Finalist
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import embed, noise_image, preprocessing, runner, smoke_run, standalone
from ofa_deploy.export.preprocessing import MODES, Kind
from ofa_deploy.export.runtime import run_torch
from ofa_deploy.graph import onnx_bytes

ACCURACY_DROP = {"fp32": 0.0005, "fp16": 0.001, "bf16": 0.001, "int8": 0.01}  # from torch's, either way
Run = Callable[[bytes, Iterable[np.ndarray]], np.ndarray]


def tested(subject: Subject, chosen: Finalist, run: Run, split: str) -> dict[str, list[int]] | None:
    """Labels of a split, and what the file and the torch module make of it; None without data."""
    arch = chosen.point.arch
    found = subject.test(lambda batches: run(chosen.onnx, batches), arch, split)
    torch_found = subject.test(
        lambda batches: np.concatenate([run_torch(chosen.subnet, x) for x in batches]), arch, split
    )
    return {**found, "torch": torch_found["predicted"]} if found and torch_found else None


def allowed_drop(precision: str, images: int) -> float:
    """By how much a file's accuracy may differ from torch's; by one image where they are too few to show less."""
    return max(ACCURACY_DROP[precision], 1.001 / images)


def check_accuracy(report: dict[str, Any], precision: str) -> None:
    """Hold the file's accuracy against torch's.

    Raises:
        GateFailed: it is further off than its precision explains.
    """
    accuracy = report["accuracy"]
    if accuracy["drop"] is None:
        return
    bound = allowed_drop(precision, accuracy["n"])
    if abs(accuracy["drop"]) > bound:
        raise GateFailed(
            f"the {precision} file of {report['subnet']['key'][:12]} has {100 * accuracy['measured']:.2f} % on the "
            f"test split, torch {100 * accuracy['torch']:.2f} %: more than {100 * bound:.2g} points apart; no bundle "
            "was written; extract with another --precision"
        )


def runnable(extraction: Extraction, embedded: bool) -> dict[str, bytes]:
    """The files that a bundle is run with, once they have run: labels, pre-processing, a program, and if asked the
    model with the pre-processing inside.

    Raises:
        GateFailed: the program fails in a process that has only the runtime, or answers otherwise than the model.
    """
    subject, target, model = extraction.subject, extraction.target, extraction.chosen.onnx
    shape = subject.space.network(extraction.chosen.point.arch).input_shape
    mean, std = subject.normalisation
    kind: Kind | None = ("float32" if target.allowed_types else "uint8") if embedded else None
    how = preprocessing(shape, mean, std, target.batch, kind)
    name, run = runner(target)
    program = Path(standalone.__file__).with_name(f"with_{name}.py")
    files = {"preprocessing.json": _json(how), "labels.json": _json(subject.labels), "infer.py": program.read_bytes()}
    if kind:
        files[how["model"]] = onnx_bytes(embed(model, mean, std, kind))
    if shape[0] in MODES and find_spec(name):
        _try(files | {"model.onnx": model}, shape, subject, run)
    return files


def _try(files: dict[str, bytes], shape: tuple[int, ...], subject: Subject, run: Run) -> None:
    """The program's answer to an image must be the model's own."""
    image = noise_image(shape[1], shape[2], shape[0])
    mean, std = (np.asarray(part, np.float64) for part in subject.normalisation)
    seen = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    expected = subject.labels[int(run(files["model.onnx"], [seen])[0].argmax())]
    said = smoke_run(files, image)
    if said != expected:
        raise GateFailed(f"infer.py says {said!r} where the model says {expected!r}; no bundle was written")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
