"""Repeating a report's answers from the original image files, by the pre-processing and the model that ship."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np

from ofa_deploy.documents.report_document import Report
from ofa_deploy.export.evidence import Test
from ofa_deploy.export.runtime import run_onnx, run_openvino
from ofa_deploy.files import short_hash
from ofa_deploy.json_types import JSON
from ofa_deploy.pixels import read

REPEATED = 500  # test files, spread over all of them
_BATCH = 64
ImageFile = str | Path | IO[bytes]


@dataclass(frozen=True)
class Repeated:
    """What repeating a report's answers showed.

    Attributes:
        files: how many test files the report is about; 0 where its images were no files.
        repeated: how many of them were read again and gave an answer.
        problems: one line for each that gave another answer than the report's.
    """

    files: int
    repeated: int
    problems: list[str]

    def __str__(self) -> str:
        if not self.files:
            return "the test images are no files of their own"
        if not self.repeated:
            return "none of the test files are where they were, so their answers were not repeated"
        return f"{self.repeated} of {self.files} test files were read again and give the answers of the report"


def repeat_answers(folder: Path, limit: int = REPEATED) -> Repeated:
    """Read a bundle's test files again, where they still lie where they were and have not changed, and compare what
    its model makes of them with its evidence.

    Args:
        limit: at most so many files, evenly spread.
    """
    report = Report.read(json.loads((folder / "report.json").read_bytes()))
    test: Test | None = json.loads((folder / "evidence.json").read_bytes())["test"]
    root = _image_root(report)
    names = [] if test is None else test.get("files", [])
    if test is None or not names or not root:
        return Repeated(len(names), 0, [])
    from ofa_deploy.fleet.auditing import evenly  # and with it the fleet, which other bundles need not load

    chosen = evenly(len(names), limit).tolist()
    found = [
        (place, path)
        for place in chosen
        if (path := Path(root) / names[place]).is_file() and short_hash(path.read_bytes()) == test["sha256"][place]
    ]
    answers = bundle_answers(folder, report.parity.runtime, [path for _, path in found]) if found else None
    if answers is None:
        return Repeated(len(names), 0, [])
    expected = [test["predicted"][place] for place, _ in found]
    problems = [
        f"{names[place]}: the report's answer is class {wanted}, the bundle's model now answers {answer}"
        for (place, _), wanted, answer in zip(found, expected, answers, strict=True)
        if answer != wanted
    ]
    return Repeated(len(names), len(found), problems)


def _image_root(report: Report) -> str | None:
    """The folder of images that a report's supernet was trained on; None where its images were no files."""
    data = (report.provenance.recipe or {}).get("data")
    root = data.get("root") if isinstance(data, dict) else None
    return root if isinstance(root, str) else None


def bundle_answers(folder: Path, runtime: str | None, files: Iterable[ImageFile]) -> list[int] | None:
    """The classes that a bundle's model finds in image files; None where the runtime that the report's answers are of
    is not installed.

    Args:
        runtime: the package, as ``parity`` of a report says it; ONNX Runtime where an older one does not.
    """
    runtime = runtime or "onnxruntime"
    if not find_spec(runtime):
        return None
    run: Callable[[bytes, Iterable[np.ndarray]], np.ndarray] = run_openvino if runtime == "openvino" else run_onnx
    how = json.loads((folder / "preprocessing.json").read_bytes())
    return run((folder / "model.onnx").read_bytes(), _batches(files, how)).argmax(1).tolist()


def _batches(files: Iterable[ImageFile], how: Mapping[str, JSON]) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    for file in files:
        batch.append(read(file, how))
        if len(batch) == _BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
