"""What a model file is held against before it ships: its torch module on the test split, and a machine without us."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from PIL import Image

from ofa_deploy.config import BROWSER, SIMULATED, TargetProfile
from ofa_deploy.deploy.extraction import Extraction, Finalist
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.preprocessing_document import Framing, Preprocessing
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import described, embed, noise_image, preprocessing, program, runner, smoke_run
from ofa_deploy.export.evidence import Test
from ofa_deploy.export.preprocessing import EMBEDDED, Kind
from ofa_deploy.export.runtime import run_torch
from ofa_deploy.files import short_hash
from ofa_deploy.fleet.auditing import evenly
from ofa_deploy.graph import onnx_bytes
from ofa_deploy.json_types import JSON
from ofa_deploy.pixels import MODES, read
from ofa_deploy.report.text import accuracy, plain
from ofa_deploy.training.loading import FolderImages

ACCURACY_DROP = {"fp32": 0.0005, "fp16": 0.001, "bf16": 0.001, "int8": 0.01}  # from torch's, either way
NEARLY = 17  # a target of this opset or later takes a file of the next one, which resizes with antialiasing
SAMPLES = 8  # test images in a bundle
Run = Callable[[bytes, Iterable[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Runnable:
    """What a bundle is run with.

    Attributes:
        files: by name.
        answers: the classes that the model finds in the test images among them.
        preprocessing: what ``preprocessing.json`` says.
    """

    files: dict[str, bytes]
    answers: dict[str, int]
    preprocessing: Preprocessing


def tested(subject: Subject, chosen: Finalist, run: Run, split: str) -> Test | None:
    """Labels of a split, and what the file and the torch module make of it; None without data."""
    arch = chosen.point.arch
    found = subject.test(lambda batches: run(chosen.onnx, batches), arch, split)
    torch_found = subject.test(
        lambda batches: np.concatenate([run_torch(chosen.subnet, x) for x in batches]), arch, split
    )
    if not found or not torch_found:
        return None
    answers: Test = {"labels": found["labels"], "predicted": found["predicted"], "torch": torch_found["predicted"]}
    if "files" in found:
        answers["files"] = found["files"]
        if subject.data and subject.data.root:
            answers["sha256"] = [short_hash((subject.data.root / name).read_bytes()) for name in found["files"]]
    return answers


def share_of(labels: Sequence[int], answers: Sequence[int]) -> float:
    """The accuracy of some answers, a fraction."""
    return float(np.mean(np.equal(labels, answers)))


def allowed_drop(precision: str, images: int) -> float:
    """By how much a file's accuracy may differ from torch's; by one image where they are too few to show less."""
    return max(ACCURACY_DROP[precision], 1.001 / images)


def check_accuracy(report: Report, precision: str) -> None:
    """Hold the file's accuracy against torch's.

    Raises:
        GateFailed: it is further off than its precision explains.
    """
    found = report.accuracy
    if found.drop is None or not found.n:
        return
    bound = allowed_drop(precision, found.n)
    if abs(found.drop) > bound:
        file, torch = accuracy(found.measured, found.n), accuracy(found.torch, found.n)
        raise GateFailed(
            f"the {precision} file of {plain(report.subnet.key)[:12]} has {file} on the test split, torch {torch}: "
            f"more than {100 * bound:.2g} points apart on the same images; no bundle was written; extract with another "
            "--precision"
        )


def runnable(extraction: Extraction, embedded: bool) -> Runnable:
    """The files that a bundle is run with, once they have run: the model, labels, pre-processing, a program, a few of
    the test images where their licence allows it, and if asked the model with the pre-processing inside.

    Raises:
        GateFailed: the program fails in a process that has only the runtime, or answers otherwise than the model.
    """
    subject, target, chosen = extraction.subject, extraction.target, extraction.chosen
    how = subject.preprocessing(chosen.point.arch)
    kind = embeddable(target, how) if embedded else None
    facts = preprocessing(how, target.batch, kind)
    name, run = runner(target)
    model = described(chosen.onnx, how, subject.labels)
    files = {
        "model.onnx": model,
        "preprocessing.json": _json(facts.to_json()),
        "labels.json": _json(subject.labels),
        "infer.py": program(name),
    }
    if kind:
        files[EMBEDDED] = onnx_bytes(embed(model, how, kind))
    images = test_images(subject)
    channels = subject.space.network(chosen.point.arch).input_shape[0]
    shown = images or {"noise.png": _png(noise_image(how["height"], how["width"], channels))}
    answers: list[int] = _try(files, shown, run) if channels in MODES and find_spec(name) else []
    known = {name: answer for name, answer in zip(shown, answers, strict=False) if name in images}
    return Runnable(files | images, known, facts)


def embeddable(target: TargetProfile, how: Framing) -> Kind:
    """How a model takes images that has the pre-processing inside. Of any size they must be resized in the graph with
    antialiasing, which ONNX Runtime does as Pillow does; OpenVINO and TensorRT do not."""
    if target.allowed_types:
        return "float32"
    resizes = target.runtime in ("onnxruntime", SIMULATED) or target.runtime.startswith(BROWSER)
    whole = how["shorter_side"] is None or how["crop"] is None or how["shorter_side"] >= how["crop"]
    return "any size" if resizes and whole and target.opset >= NEARLY and target.allows("Resize") else "uint8"


def test_images(subject: Subject) -> dict[str, bytes]:
    """A few of the test split's images, the original files or arrays as PNG, where their licence is known; by name."""
    data = subject.data
    if data is None or not data.licence or data.in_channels not in MODES:
        return {}
    found = {}
    for number in evenly(len(data.test), SAMPLES).tolist():
        if isinstance(data.test, FolderImages):
            path = data.test.path(number)
            with contextlib.suppress(OSError):
                found[f"test_{number}{path.suffix.lower()}"] = path.read_bytes()
        else:
            image, _ = data.test[number]
            found[f"test_{number}.png"] = _png(image.permute(1, 2, 0).numpy())
    return found


def _try(files: dict[str, bytes], images: dict[str, bytes], run: Run) -> list[int]:
    """The model's answers to images, which must be the program's."""
    how, labels = (json.loads(files[name]) for name in ("preprocessing.json", "labels.json"))
    tensors = np.stack([read(io.BytesIO(content), how) for content in images.values()])
    answers: list[int] = run(files["model.onnx"], [tensors]).argmax(1).tolist()
    expected = [labels[answer] for answer in answers]
    said = smoke_run(files, images)
    if other := [name for name, one, wanted in zip(images, said, expected, strict=True) if one != wanted]:
        place = list(images).index(other[0])
        raise GateFailed(
            f"infer.py says {said[place]!r} of {other[0]} where the model says {expected[place]!r}; no bundle was "
            "written"
        )
    return answers


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(content, "png")
    return content.getvalue()


def _json(value: JSON) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
