"""Classify images with the model beside this file; needs onnxruntime and Pillow.  python infer.py IMAGE..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.pixels import read

RUNTIME = "onnxruntime"
HERE = Path(__file__).resolve().parent
HOW, LABELS = (json.loads((HERE / name).read_text("utf-8")) for name in ("preprocessing.json", "labels.json"))


def loaded(path: str) -> Any:
    """The model of a file: a function from images to logits, ``float32[N, …]`` each."""
    if RUNTIME == "openvino":
        import openvino

        model = openvino.Core().compile_model(path, "CPU")
        return lambda images: model({HOW["input"]: images})[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {HOW["input"]: images})[0]


if __name__ == "__main__":
    model = loaded(str(HERE / HOW["model"]))
    for path in sys.argv[1:]:
        logits = model(np.repeat(read(path, HOW)[None], HOW["batch"], 0))[0]
        odds = np.exp(logits - logits.max())
        print(f"{path}: {LABELS[int(odds.argmax())]} {odds.max() / odds.sum():.3f}")
