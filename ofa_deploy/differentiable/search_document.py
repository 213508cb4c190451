"""The JSON documents of searches for cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from ofa_deploy.differentiable.derivation import Nodes
from ofa_deploy.differentiable.mixing import CANDIDATES
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.training.data import Fingerprint


class Epoch(TypedDict):
    """What an epoch brought: means of its steps' figures, and the architecture after it."""

    epoch: int  # counted from 1
    stage: int  # of the recipe's plan, counted from 0
    frozen: bool  # whether the architecture did not learn in it
    loss: float
    accuracy: float
    arch_loss: NotRequired[float]
    entropy: float  # mean over the edges of how undecided they are, in nats
    weights: dict[str, list[list[float]]]  # of a kind of cell, [edges, candidates], each times its edge's share
    eigenvalue: NotRequired[float]  # the largest of the validation loss' Hessian, where a guard watches it


class Acted(TypedDict):
    """What a guard did: the recipe's key, the epoch that the cells come from, and a reason for people."""

    guard: str
    epoch: int
    why: str


class CellSearchDocument(TypedDict):
    """A finished search by gradient."""

    recipe: dict[str, JSON]  # its identity
    genotype: dict[str, JSON]
    nodes: Nodes  # the genotype in the order of the weights
    epoch: int  # the one it was derived from
    acted: list[Acted]
    candidates: list[str]  # the columns of the weights
    seconds: float
    fingerprint: Fingerprint
    history: list[Epoch]


class Improvement(TypedDict):
    """After how many evaluations a search knew something so accurate."""

    evaluations: int
    accuracy: float


class GenotypeSearchDocument(TypedDict):
    """A finished search by one of the strategies that evaluate genotypes."""

    recipe: dict[str, JSON]  # its identity
    strategy: str
    genotype: dict[str, JSON]
    accuracy: float  # with the shared weights, on images of the training split that taught no weights
    evaluations: int
    trace: list[Improvement]
    seconds: float


def read_search(path: Path) -> CellSearchDocument:
    """A finished search's result.

    Raises:
        UsageError: the file is missing, or no search's.
    """
    try:
        found: CellSearchDocument = json.loads(path.read_text(encoding="utf-8"))
        if found["candidates"] != list(CANDIDATES) or not found["history"]:
            raise ValueError("no history")
    except OSError as error:
        raise UsageError(f"cannot read the search {path}: {error.strerror}; run: ofa-deploy darts search") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no whole result of a search; run: ofa-deploy darts search") from error
    return found
