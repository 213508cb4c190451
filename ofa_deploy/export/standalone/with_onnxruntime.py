"""Classify images with the model beside this file; needs onnxruntime and Pillow.  python infer.py IMAGE..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
HOW, LABELS = (json.loads((HERE / name).read_text("utf-8")) for name in ("preprocessing.json", "labels.json"))


def read(path: str) -> np.ndarray:
    """An image as the model takes it."""
    image = Image.open(path).convert(HOW["mode"]).resize((HOW["width"], HOW["height"]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32).reshape(1, HOW["height"], HOW["width"], -1)
    if HOW["type"] == "uint8":
        return pixels.astype(np.uint8)
    scaled = pixels / 255
    return scaled if HOW["layout"] == "NHWC" else ((scaled - HOW["mean"]) / HOW["std"]).transpose(0, 3, 1, 2)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(str(HERE / HOW["model"]), providers=["CPUExecutionProvider"])
    for path in sys.argv[1:]:
        x = np.repeat(read(path), HOW["batch"], 0).astype(HOW["type"])
        logits = session.run(None, {"input": x})[0][0]
        odds = np.exp(logits - logits.max())
        print(f"{path}: {LABELS[int(odds.argmax())]} {odds.max() / odds.sum():.3f}")
