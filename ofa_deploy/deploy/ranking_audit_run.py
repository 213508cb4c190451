"""The ranking audit: networks of a supernet trained alone, and every score of theirs compared with what came out."""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import ofa_deploy
from ofa_deploy.accuracy.campaign import Campaign
from ofa_deploy.accuracy.proxies import PROXIES, proxy_scores
from ofa_deploy.accuracy.rank_agreement import ranking_audit
from ofa_deploy.config import TrainRecipe
from ofa_deploy.deploy.finetuning import SCRATCH, VALID
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.ranking_document import RankedNetwork, Ranking
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Numbers, Progress
from ofa_deploy.space import Arch, SearchSpace, arch_facts, frozen
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet, Supernet, as_subnet, initialise, read_summary
from ofa_deploy.training import Data, alone_recipe, batches, expected_seconds, train_supernet, training_id

PROXY_IMAGES = 64
FEWEST = 3  # networks that can be ranked


@dataclass(frozen=True)
class Plan:
    """What an audit trains.

    Attributes:
        networks: how many, the smallest and the largest of the space among them.
        epochs: of each training, by the supernet's own recipe; None for a quarter of its.
        seeds: trainings of a network.
        repeat: how many networks are trained with more than the first seed; None for all.
        seed: of the choice of networks.
    """

    networks: int = 12
    epochs: int | None = None
    seeds: int = 2
    repeat: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Label:
    """One training to be done."""

    arch: Arch
    seed: int
    recipe: TrainRecipe


class RankingAudit:
    """One audit: the same subject and plan make the same labels, and find those that were made.

    Attributes:
        archs: the networks.
        labels: the trainings, all networks' first seed before any's second.
        epochs: of every training.

    Raises:
        UsageError: the supernet was not trained here, or its images are not at hand.
    """

    def __init__(self, workspace: Workspace, subject: Subject, plan: Plan) -> None:
        self._workspace, self._subject, self._plan = workspace, subject, plan
        self._recipe, self._campaign, self._data, self._space = _trained_here(subject)
        self.epochs = max(1, self._recipe.epochs // 4) if plan.epochs is None else plan.epochs
        self.archs = networks(subject, plan)
        repeated = _spread(len(self.archs), plan.repeat)
        self.labels = [
            self._label(arch, seed)
            for seed in range(plan.seeds)
            for i, arch in enumerate(self.archs)
            if seed == 0 or i in repeated
        ]

    @property
    def _images(self) -> int:
        """Held-out images that an accuracy is of."""
        return min(self._recipe.accuracy.images, len(self._data.valid))

    def _label(self, arch: Arch, seed: int) -> Label:
        return Label(arch, seed, alone_recipe(self._recipe, self._space, arch, self.epochs, seed))

    def expected(self) -> list[float]:
        """About how many seconds each label takes, from a few steps that are timed now; 0 where none is missing."""
        if not self.missing():
            return [0.0] * len(self.labels)
        recipe = self._recipe.model_copy(update={"epochs": self.epochs})
        seconds = expected_seconds(recipe, self._space, self.archs, self._data)
        known = dict(zip((arch.key for arch in self.archs), seconds, strict=True))
        return [known[label.arch.key] for label in self.labels]

    def missing(self) -> list[int]:
        """Positions of the labels that are still to be made."""
        made = self._made()
        return [i for i, label in enumerate(self.labels) if training_id(label.recipe, self._data) not in made]

    def run(self, expected: Sequence[float], progress: Progress | None = None) -> Ranking:
        """Make the labels that are missing, each kept as soon as it is there, and compare.

        A killed audit goes on where it stopped, also within a training.

        Args:
            expected: seconds of each label, by which the progress is reckoned.
            progress: called with ``done`` and ``total``, in labels of mean length, and what is trained.

        Returns:
            The audit; the command that repeats it is not in it yet.
        """
        share = np.array(expected) * len(expected) / (sum(expected) or 1.0)
        missing = self.missing()
        done = float(np.delete(share, missing).sum())
        for i in missing:
            self._make(self.labels[i], _within(progress, done, float(share[i]), len(self.labels), i))
            done += float(share[i])
        return self._answer(progress)

    def _make(self, label: Label, progress: Progress | None) -> None:
        identity = training_id(label.recipe, self._data)
        folder = self._workspace.root / "alone" / identity[:16]
        summary = read_summary(train_supernet(label.recipe, folder, resume=True, report=progress))[1]
        meta = {
            "key": label.arch.key,
            "arch": label.arch.to_json(),
            "seed": label.seed,
            "accuracy": summary["valid"]["largest"],
            "seconds": summary["seconds"],
            "recipe": summary["recipe"],
        }
        store, space = self._workspace.store, self._subject.space
        store.architectures.add([arch_facts(label.arch, space.network(label.arch))])
        evaluated = (self._subject.sha256, meta["arch"], meta["key"], meta["accuracy"], self._images, VALID, "audit")
        store.add_evaluation(*evaluated, state=SCRATCH, weights=identity)
        store.add_artefact("label", str(folder), identity, meta)  # last: it says that the label is there
        shutil.rmtree(folder, ignore_errors=True)

    def _made(self) -> dict[str, Mapping[str, Any]]:
        return {artefact.sha256: artefact.meta for artefact in self._workspace.store.artefacts("label")}

    def _answer(self, progress: Progress | None) -> Ranking:
        made, subject = self._made(), self._subject
        scores, milliseconds = self._scores(progress)
        rows = [self._row(arch, made) for arch in self.archs]
        by_network = [{name: values[i] for name, values in scores.items()} for i in range(len(rows))]
        compared = [{"alone": row.alone, "scores": of} for row, of in zip(rows, by_network, strict=True)]
        figures = _finite(ranking_audit(compared, self._plan.seed))
        for name, score in figures["scores"].items():
            score["ms"] = milliseconds.get(name)
        return Ranking.model_validate(
            {
                "kind": "ranking",
                "name": subject.name,
                "space": subject.space.name,
                "supernet_sha256": subject.sha256,
                "predictor": subject.predictor.error if subject.predictor else None,
                "split": VALID,
                "images": self._images,
                "epochs": self.epochs,
                "recipe": _common(self.labels[0].recipe),
                "seconds": sum(sum(row.alone_seconds) for row in rows),
                **figures,
                "rows": [{**row.to_json(), "scores": _finite(of)} for row, of in zip(rows, by_network, strict=True)],
                "versions": {
                    "ofa-deploy": ofa_deploy.__version__,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
            }
        )

    def _row(self, arch: Arch, made: Mapping[str, Mapping[str, Any]]) -> RankedNetwork:
        """A network with its labels, without its scores."""
        known = [made[training_id(one.recipe, self._data)] for one in self.labels if one.arch.key == arch.key]
        return RankedNetwork(
            key=arch.key,
            arch=arch.to_json(),
            alone=[one["accuracy"] for one in known],
            alone_seconds=[one["seconds"] for one in known],
        )

    def _scores(self, progress: Progress | None) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Every score of all networks, and the mean milliseconds that a score of one took."""
        scores, took = dict[str, list[float]](), dict[str, float]()
        for name, score in self._scorers().items():
            started = time.perf_counter()
            scores[name] = [float(value) for value in score()]
            took[name] = 1000 * (time.perf_counter() - started) / len(self.archs)
            if progress:
                progress({"done": len(self.labels), "total": len(self.labels), "score": name})
        return scores, {name: ms for name, ms in took.items() if name not in ("inherited", "macs", "params")}

    def _scorers(self) -> dict[str, Callable[[], Sequence[float]]]:
        """By name, what scores all networks; of the inherited accuracies, those that are known are not repeated."""
        subject, archs, campaign = self._subject, self.archs, self._campaign
        codec, population = subject.codec, subject.codec.encode(archs)
        scorers: dict[str, Callable[[], Sequence[float]]] = {
            "inherited": lambda: campaign.accuracies(archs, ["audit"] * len(archs)),
            "macs": lambda: codec.macs(population).tolist(),
            "params": lambda: codec.params(population).tolist(),
        }
        if subject.predictor is not None:
            scorers["predictor"] = lambda: subject.accuracy(codec)(population).tolist()
        weights = {"inherited": campaign.subnets(archs), "untrained": [self._untrained(arch) for arch in archs]}
        for name in PROXIES:
            for kind, subnets in weights.items():
                scorers[f"{name} ({kind})"] = partial(self._proxy, name, subnets)
        return scorers

    def _untrained(self, arch: Arch) -> Subnet:
        single = Supernet(frozen(self._space, arch))
        initialise(single, self._plan.seed)
        return as_subnet(single, self._space.network(arch))

    def _proxy(self, name: str, subnets: Sequence[Subnet]) -> list[float]:
        data, scores = self._data, []
        for subnet, arch in zip(subnets, self.archs, strict=True):
            images = batches(data.train, arch.resolution, PROXY_IMAGES, data.mean, data.std, PROXY_IMAGES)
            scores.append(proxy_scores(subnet, *next(images), (name,))[name])
        return scores


def networks(subject: Subject, plan: Plan) -> list[Arch]:
    """The plan's networks, spread over the space by their multiply-accumulates, the smallest first.

    Raises:
        UsageError: the space has fewer than can be ranked.
    """
    codec = subject.codec
    drawn = codec.stratified(plan.networks, np.random.default_rng([plan.seed, 1]))
    archs = codec.decode(drawn[np.argsort(codec.macs(drawn), kind="stable")])
    different = list({arch.key: arch for arch in archs}.values())
    if len(different) < FEWEST:
        raise UsageError(f"{len(different)} different networks of {subject.space.name} cannot be ranked: choose more")
    return different


def _trained_here(subject: Subject) -> tuple[TrainRecipe, Campaign, Data, SearchSpace]:
    if subject.recipe is None or subject.campaign is None or subject.data is None or subject.supernet is None:
        raise UsageError(
            f"{subject.name} cannot be audited: its networks are trained alone by its own recipe, on its images "
            f"({subject.data_error or 'its weights are random'})"
        )
    return subject.recipe, subject.campaign, subject.data, subject.supernet.space


def _spread(count: int, chosen: int | None) -> set[int]:
    """Positions of so many of ``count`` networks, spread evenly; all by default."""
    return set(np.linspace(0, count - 1, min(count if chosen is None else chosen, count)).round().astype(int).tolist())


def _within(progress: Progress | None, before: float, share: float, labels: int, place: int) -> Progress | None:
    """A training's progress as that of the whole audit."""
    if progress is None:
        return None

    def told(numbers: Numbers) -> None:
        done = round(before + share * float(numbers["done"]) / float(numbers["total"]), 2)
        progress({"done": done, "total": labels, "label": place + 1, "loss": numbers["loss"]})

    return told


def _common(recipe: TrainRecipe) -> dict[str, object]:
    """What all trainings have in common."""
    own = {"name", "space", "seed", "init", "teacher"}
    return recipe.model_dump(mode="json", exclude=own)


def _finite(value: Any) -> Any:
    """A JSON value with None for what is no number."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
