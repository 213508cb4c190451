"""``load_bundle``: a network that was extracted, to look at and to use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from ofa_deploy.api.common import in_frame
from ofa_deploy.errors import UsageError
from ofa_deploy.pixels import network_input, read, upright

SCHEMA = 2  # of preprocessing.json: since then it says how an image is framed


@dataclass(frozen=True)
class Prediction:
    """What a network sees in an image.

    Attributes:
        label: the most probable class.
        probability: its softmax probability, a fraction.
        probabilities: the same of every class, most probable first.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Bundle:
    """A bundle that ``extract`` wrote.

    Attributes:
        path: its folder.
    """

    path: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """What ``report.json`` holds: the verdict, the measured and predicted latency, the accuracy and more."""
        return self._json("report.json")

    @cached_property
    def labels(self) -> list[str]:
        """The names of the classes."""
        found = self._json("labels.json")
        return list(found)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes the network's input; see ``ofa_deploy.pixels``."""
        return current(self._json("preprocessing.json"))

    def predict(self, image: object) -> Prediction:
        """Classify an image, with the pre-processing that the network was evaluated with.

        Args:
            image: a path, an image of Pillow, or an array: ``uint8[h, w]`` or ``uint8[h, w, C]``, of any size.

        Raises:
            UsageError: the image cannot be read, or the array has another type.

        Example:
            >>> ofa_deploy.load_bundle("bundle").predict("shirt.png").label
            'Shirt'
        """
        values = self._input(image)[np.newaxis]
        wanted = self._session.get_inputs()[0]
        if isinstance(size := wanted.shape[0], int):  # a fixed batch: the rest of it stays empty
            values = np.pad(values, [(0, size - 1), (0, 0), (0, 0), (0, 0)])
        logits = np.asarray(self._session.run(None, {wanted.name: values})[0][0], np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        ranked = {self.labels[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable")}
        label = next(iter(ranked))
        return Prediction(label, ranked[label], ranked)

    def _input(self, image: object) -> np.ndarray:
        how = self.preprocessing
        try:
            if isinstance(image, (str, Path)):
                return read(image, how)
            if isinstance(image, Image.Image):
                return network_input(upright(image, how["mode"]), how)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the image: {error}") from error
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise UsageError(
                f"cannot use an array of {pixels.dtype} with {pixels.ndim} dimensions: give uint8[h, w] or "
                "uint8[h, w, C]"
            )
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        return network_input(upright(Image.fromarray(pixels), how["mode"]), how)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        return onnxruntime.InferenceSession(str(self.path / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def _json(self, name: str) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path} is not a bundle, or damaged: cannot read {file}: {error}") from error

    def __str__(self) -> str:
        return f"{self.report['verdict']['text']}\n{self.path}"

    def _repr_html_(self) -> str:
        return in_frame((self.path / "report.html").read_text(encoding="utf-8"))


def current(found: Mapping[str, Any]) -> dict[str, Any]:
    """A ``preprocessing.json`` of any version as today's: bundles before schema 2 resized the whole image."""
    if found.get("schema", 1) >= SCHEMA:
        return dict(found)
    return {**found, "shorter_side": None, "crop": None}


def load_bundle(path: str | Path) -> Bundle:
    """Open a bundle that ``extract`` wrote.

    Args:
        path: its folder.

    Returns:
        The bundle: its ``report``, ``labels`` and ``preprocessing``, and ``predict(image)``. In a notebook it shows its
        report.

    Raises:
        UsageError: the folder holds no bundle.

    Example:
        >>> bundle = ofa_deploy.load_bundle(".ofa/bundles/local-ms2")
        >>> bundle.predict("shirt.png").label
        'Shirt'
    """
    bundle = Bundle(Path(path))
    bundle.report  # noqa: B018 - says at once that there is none
    return bundle
