"""Classify images with the model beside this file; needs onnxruntime and Pillow.  python infer.py IMAGE..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from ofa_deploy.pixels import read

HERE = Path(__file__).resolve().parent
HOW, LABELS = (json.loads((HERE / name).read_text("utf-8")) for name in ("preprocessing.json", "labels.json"))

if __name__ == "__main__":
    session = onnxruntime.InferenceSession(str(HERE / HOW["model"]), providers=["CPUExecutionProvider"])
    for path in sys.argv[1:]:
        images = np.repeat(read(path, HOW)[None], HOW["batch"], 0)
        logits = session.run(None, {HOW["input"]: images})[0][0]
        odds = np.exp(logits - logits.max())
        print(f"{path}: {LABELS[int(odds.argmax())]} {odds.max() / odds.sum():.3f}")
