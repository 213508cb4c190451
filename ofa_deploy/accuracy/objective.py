"""What a search maximises, and the predictors that the workspace keeps by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ofa_deploy.accuracy.predictor import AccuracyPredictor, read_card
from ofa_deploy.accuracy.published_predictor import KIND, PublishedPredictor
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.space import GENE, Population, PopulationCodec, load_space
from ofa_deploy.store import Workspace

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class Predictor(Protocol):
    """What predicts accuracies of a space's subnets.

    Attributes:
        codec: the space that it knows.
        error: how far it errs, as a report tells it.
    """

    @property
    def codec(self) -> PopulationCodec: ...  # noqa: D102

    @property
    def error(self) -> PredictorError: ...  # noqa: D102

    def predict(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, fractions, ``float64[N]`` each; NaN where the deviation is not known."""

    def summary(self) -> str:
        """How far it errs, in one line."""

    def to_bytes(self) -> bytes:
        """Its file; ``read_predictor`` reads it."""


def objective(codec: PopulationCodec, predictor: Predictor | None) -> Callable[[Population], np.ndarray]:
    """What a search maximises: predicted accuracy, or without a predictor a score that grows with MACs.

    Args:
        codec: of the populations; it may list fewer resolutions than the predictor knows.

    Raises:
        UsageError: the predictor knows other subnets.
    """
    if predictor is None:
        largest = float(codec.macs(codec.encode([codec.space.largest]))[0])
        return lambda population: codec.macs(population) / largest
    space, its = codec.space, predictor.codec.space
    unknown = sorted(set(space.resolutions) - set(its.resolutions))
    if not its.alike(space) or unknown:
        what = f"{space.name} at {unknown[0]} pixels" if unknown else space.name
        raise UsageError(
            f"the accuracy predictor was fitted on {its.name} and does not know {what}; choose another with --accuracy"
        )
    known = np.array([its.resolutions.index(r) for r in space.resolutions], dtype=GENE)

    def predicted(population: Population) -> np.ndarray:
        population = population.copy()
        population[:, 0] = known[population[:, 0]]
        return np.clip(predictor.predict(population)[0], 0.0, 1.0)

    return predicted


def read_predictor(codec: PopulationCodec, content: bytes) -> Predictor:
    """Read a predictor of either kind.

    Args:
        codec: of the space that one of ours was fitted on; a published one says itself what it knows.

    Raises:
        UsageError: the content is truncated, or was fitted on another space.
    """
    if read_card(content).kind == KIND:
        return PublishedPredictor.from_bytes(content)
    return AccuracyPredictor.from_bytes(codec, content)


def keep_predictor(workspace: Workspace, name: str, predictor: Predictor) -> Path:
    """Keep a predictor under a name; one that was there is replaced.

    Returns:
        Its file.

    Raises:
        UsageError: it is no name.
    """
    check_name(name)
    path = workspace.accuracy / f"{name}.safetensors"
    write_atomic(path, predictor.to_bytes())
    return path


def check_name(name: str) -> None:
    """Whether a predictor can be kept under a name.

    Raises:
        UsageError: it is no name.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name[:100]!r} is not a name: letters, digits, '.', '_' and '-', 100 at most")


def load_predictor(workspace: Workspace, name: str) -> Predictor:
    """Read a predictor that was kept under a name.

    Raises:
        UsageError: there is none; lists those there are. Or its file is damaged.
    """
    path = workspace.accuracy / f"{name}.safetensors"
    if not re.fullmatch(NAME, name) or not path.is_file():
        known = ", ".join(sorted(path.stem for path in workspace.accuracy.glob("*.safetensors"))) or "none"
        raise UsageError(
            f"unknown accuracy predictor {name[:100]!r}; known: {known}; take one with: "
            "ofa-deploy import ofa-accuracy, or fit one with: ofa-deploy predictor fit --name"
        )
    try:
        content = path.read_bytes()
        return read_predictor(PopulationCodec(load_space(read_card(content).space)), content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
