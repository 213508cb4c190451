"""What is deployed: a supernet that was trained or imported, or a space with random weights.

Each kind is a class; ``cell_networks`` has those of cells.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_deploy import pixels
from ofa_deploy.accuracy import AccuracyPredictor, Predictor, objective
from ofa_deploy.accuracy.belief import Belief, belief_in, knows
from ofa_deploy.accuracy.campaign import Campaign, follow, let_go
from ofa_deploy.accuracy.collection import Collection
from ofa_deploy.accuracy.predictor import FEWEST
from ofa_deploy.accuracy.proxy_gate import ProxyGate
from ofa_deploy.blocks import Network, random_weights
from ofa_deploy.config import AccuracyConfig, TrainRecipe, read_document, shipped_folder
from ofa_deploy.documents.preprocessing_document import Framing
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.graph import CALIBRATION_IMAGES
from ofa_deploy.notices import Progress, Tell, silent
from ofa_deploy.pixels import MODES
from ofa_deploy.space import Arch, Family, Population, PopulationCodec, SearchSpace, load_space
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet, Supernet, load_supernet
from ofa_deploy.training import ALONE, Data, World, batches, load_data, read_sample, trained_data
from ofa_deploy.training.data import IMAGENET, numbered_batches
from ofa_deploy.training.loading import FolderImages

SUPERNET, PREDICTOR, SAMPLE = "supernet.safetensors", "predictor.safetensors", "sample.npz"
SHIPPED = "fashion_mnist_boxed"  # the folder in ``supernets`` of the one to begin with, by the recipe of that name
BATCH = 256
INHERITED = (
    "Batch norm was not recalibrated: the subnet has its share of the imported supernet's statistics, as "
    "once-for-all's own extracted subnets have before recalibration on images."
)


@dataclass
class Subject:
    """A family with weights, and how accuracies in it are known. Kinds of subjects say where the weights come from.

    Attributes:
        space: what can be extracted.
        name: for people: the recipe's name, or the space's with "random weights".
        supernet: None where weights are random.
        recipe: how the supernet was trained; None where that is unknown.
        source: the published file that the supernet was imported from, if it was.
        data: its images; None where they cannot be found, with the reason in ``data_error``.
        predictor: None where no accuracy is known; search then prefers more MACs.
        found: of cells, the search that found them, for the report's pictures.
        sizes: of one trained network, the family that it was chosen from: its measurements tell the device's level.
        sha256: of the supernet's file, or of the space and seed.
    """

    space: Family
    name: str
    sha256: str
    supernet: Supernet | None = None
    path: Path | None = None
    recipe: TrainRecipe | None = None
    source: dict[str, Any] | None = None
    data: Data | None = None
    data_error: str | None = None
    predictor: Predictor | None = None
    campaign: Campaign | None = None
    seed: int = 0
    found: dict[str, Any] | None = None
    sizes: Family | None = None

    @property
    def random_weights(self) -> bool:
        """Whether there are no trained weights."""
        return False

    def finished(self, arch: Arch, workspace: Workspace, tell: Tell = silent) -> Subject | None:
        """What a size that was chosen becomes by training; None where nothing is left to train."""
        return None

    @property
    def audit_options(self) -> dict[str, object]:
        """By name, what `audit` must be told to audit this, beside the target; of a space, its name tells."""
        return {}

    @cached_property
    def codec(self) -> PopulationCodec:
        """Populations of the space."""
        return PopulationCodec(self.space)

    def accuracy(self, codec: PopulationCodec) -> Callable[[Population], np.ndarray]:
        """The objective of a search: predicted accuracy, or without a predictor a score that grows with MACs."""
        return objective(codec, self.predictor)

    def belief(self, arch: Arch) -> Belief | None:
        """A subnet's predicted accuracy with its error; None where that is not known of these weights.

        It is predicted alone: within a population, floating-point sums come in another order.
        """
        if self.predictor is None or not knows(self.predictor.error, self.sha256):
            return None
        predicted = self.accuracy(self.codec)(self.codec.encode([arch]))[0]
        return belief_in(predicted, self.predictor.error, self.sha256)

    def subnet(self, arch: Arch) -> Subnet:
        """A subnet as a static module, in eval mode."""
        raise NotImplementedError

    def images(self, arch: Arch, count: int) -> np.ndarray:
        """Images for checking numbers, ``float32[count, C, R, R]``: held-out ones, or noise without data."""
        network: Network = self.space.network(arch)
        if self.data is None:
            noise = np.random.default_rng(self.seed).standard_normal((count, *network.input_shape))
            return noise.astype(np.float32)
        data = self.data
        images = batches(data.valid, arch.resolution, BATCH, data.mean, data.std, count)
        return np.concatenate([np.ascontiguousarray(x.numpy()) for x, _ in images])

    def calibration(self, arch: Arch) -> np.ndarray | None:
        """Training images to calibrate int8 with, ``float32[N, C, R, R]``, always the same; None without data."""
        if self.data is None:
            return None
        data = self.data
        images = batches(data.train, arch.resolution, BATCH, data.mean, data.std, CALIBRATION_IMAGES)
        return np.concatenate([np.ascontiguousarray(x.numpy()) for x, _ in images])

    @property
    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation per channel, of values from 0 to 1; 0 and 1 where nothing was trained."""
        if self.data is not None:
            return self.data.mean, self.data.std
        return [0.0] * self.space.in_channels, [1.0] * self.space.in_channels

    @property
    def labels(self) -> list[str]:
        """The classes' names; their numbers where they are not known."""
        return list(self.data.classes) if self.data else [str(number) for number in range(self.space.num_classes)]

    def preprocessing(self, arch: Arch) -> Framing:
        """How an image file becomes what a subnet takes: ``how`` of ``pixels``."""
        channels, height, width = self.space.network(arch).input_shape
        mean, std = self.normalisation
        shorter_side, crop = self._frame(height)
        return {
            "mode": MODES.get(channels, str(channels)),
            "shorter_side": shorter_side,
            "crop": crop,
            "height": height,
            "width": width,
            "mean": list(mean),
            "std": list(std),
        }

    def _frame(self, side: int) -> tuple[int | None, int | None]:
        """The shorter side to which images are resized, and the crop, for an input of ``side`` pixels."""
        return (self.data.shorter_side, self.data.crop) if self.data is not None else (side, side)

    def test(
        self, logits: Callable[[Iterable[np.ndarray]], np.ndarray], arch: Arch, split: str = "test"
    ) -> dict[str, list[Any]] | None:
        """What a function makes of a split that is pre-processed as a bundle's ``infer.py`` does; None without data.

        Args:
            logits: from batches of images to the logits of all; it is called once.

        Returns:
            ``labels``, ``predicted``, and of a folder of images the ``files`` below it, one of each for an image that
            can be read.
        """
        if self.data is None:
            return None
        part, how = getattr(self.data, split), self.preprocessing(arch)
        seen: list[int] = []

        def images() -> Iterator[np.ndarray]:
            for batch, numbers in numbered_batches(part, BATCH):
                seen.extend(numbers.tolist())
                frames = batch.permute(0, 2, 3, 1).numpy()
                sized = (pixels.resized(frame, how["height"], how["width"]) for frame in frames)
                yield np.stack([pixels.normalised(values, how["mean"], how["std"]) for values in sized])

        predicted = logits(images()).argmax(1).tolist()
        found = {"labels": [int(part.labels[number]) for number in seen], "predicted": predicted}
        if isinstance(part, FolderImages):
            root = self.data.root or part.root
            found["files"] = [part.path(number).relative_to(root).as_posix() for number in seen]
        return found


@dataclass
class RandomWeights(Subject):
    """A family whose weights are random: latency can be studied, accuracy cannot but by a predictor of others."""

    @property
    def random_weights(self) -> bool:
        """Always."""
        return True

    def subnet(self, arch: Arch) -> Subnet:
        """A subnet with weights of the seed."""
        network = self.space.network(arch)
        module = Subnet(network)
        module.load_weights(random_weights(network, self.seed))
        return module.eval()


@dataclass
class TrainedSupernet(Subject):
    """A supernet that was trained here, or elsewhere by a recipe that its file names."""

    def subnet(self, arch: Arch) -> Subnet:
        """A subnet with recalibrated batch norm.

        Raises:
            OfaDeployError: the images to recalibrate it with are gone.
        """
        if self.campaign is None:
            raise OfaDeployError(f"{self.name}: batch norm cannot be recalibrated without its data: {self.data_error}")
        return self.campaign.subnets([arch])[0]

    def _frame(self, side: int) -> tuple[int | None, int | None]:
        if self.data is None and self.recipe is not None and self.recipe.data.name == "image_folder":
            return self.recipe.data.resize or self.recipe.data.size, self.recipe.data.size
        return super()._frame(side)


@dataclass
class ImportedSupernet(Subject):
    """A published supernet. Its subnets inherit its statistics: it was published without its images, to be used so."""

    def subnet(self, arch: Arch) -> Subnet:
        """A subnet with its share of the supernet's statistics."""
        if self.supernet is None:
            raise OfaDeployError(f"{self.name}: there is no supernet to take a subnet of")
        return self.supernet.extract(arch)

    @property
    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """That of its publication; of ImageNet where it names none."""
        if self.source is not None and self.space.in_channels == len(IMAGENET.mean):
            return self.source.get("mean", IMAGENET.mean), self.source.get("std", IMAGENET.std)
        return super().normalisation

    def _frame(self, side: int) -> tuple[int | None, int | None]:
        return math.ceil(side / 0.875), side  # as once-for-all evaluates on ImageNet, at every resolution


def random_subject(space: SearchSpace, seed: int = 0, predictor: Predictor | None = None) -> RandomWeights:
    """A space with random weights."""
    digest = hashlib.sha256(f"{space.to_json()} seed {seed}".encode()).hexdigest()
    return RandomWeights(space, f"{space.name} (random weights)", digest, predictor=predictor, seed=seed)


def find_supernet(workspace: Workspace, given: Path | None) -> Path:
    """The supernet's file: the given one, or the newest trained one of the workspace, or the small one that ships.

    Raises:
        UsageError: the given one is not there.
    """
    if given is not None:
        path = given / SUPERNET if given.is_dir() else given
        if not path.is_file():
            raise UsageError(f"there is no supernet at {given}")
        return path
    found = sorted(workspace.supernets.glob(f"*/{SUPERNET}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else shipped_folder("supernets") / SHIPPED / SUPERNET


def load_subject(
    workspace: Workspace,
    path: Path,
    progress: Progress | None = None,
    seed: int = 0,
    world: World = ALONE,
    predictor: Predictor | None = None,
) -> Subject:
    """Load a supernet with its data and its accuracy predictor; evaluates subnets first where there is no predictor.

    Args:
        world: the processes that share the evaluation; all but this main one are in ``follow_subject``.
        predictor: takes the place of the supernet's own.

    Raises:
        UsageError: the file is no supernet, or it or the predictor is truncated.
    """
    subject = open_subject(workspace, path, seed, world)
    subject.predictor = predictor or _predictor(subject, progress)
    let_go(world)
    return subject


def open_subject(workspace: Workspace, path: Path, seed: int = 0, world: World = ALONE) -> Subject:
    """Load a supernet with its data, without an accuracy predictor.

    Raises:
        UsageError: the file is no supernet, or truncated.
    """
    supernet, summary = load_supernet(path)
    world.copy_from_main(supernet.state_dict().values())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    recipe = read_document(TrainRecipe, summary["recipe"]) if "recipe" in summary else None
    source = summary.get("source")
    kind = TrainedSupernet if source is None else ImportedSupernet
    subject = kind(
        supernet.space, recipe.name if recipe else path.stem, digest, supernet, path, recipe, source, seed=seed
    )
    try:
        if source is not None:
            raise UsageError(f"the supernet was imported from {source['file']}, without its images")
        if recipe is None:
            raise UsageError("the supernet's file does not say what it was trained on")
        subject.data = _images(recipe, summary, path.with_name(SAMPLE))
        args = (workspace.store, digest, supernet, subject.data, recipe.accuracy, world, recipe.threads)
        subject.campaign = Campaign(*args)
    except UsageError as error:
        subject.data_error = str(error)
    return subject


def _images(recipe: TrainRecipe, summary: dict[str, Any], sample: Path) -> Data:
    """The data that a supernet was trained on; where it is not at hand, the sample that came with the supernet."""
    if not sample.exists():
        return trained_data(recipe.data, summary)
    try:
        return trained_data(recipe.data, summary, fetch=False)
    except UsageError:
        return read_sample(sample, recipe.data.name, summary)


def follow_subject(recipe: TrainRecipe, world: World) -> None:
    """Help the main process's ``load_subject``; everything but the images comes from there."""
    supernet = Supernet(load_space(recipe.space)).eval()
    world.copy_from_main(supernet.state_dict().values())
    follow(supernet, load_data(recipe.data), world)


def _predictor(subject: Subject, progress: Progress | None) -> AccuracyPredictor | None:
    """The one that is kept beside the supernet, or a new one; None without data, or where the space is too small."""
    if subject.space.size < FEWEST:
        return None
    known = kept_predictor(subject)
    if known is not None or subject.campaign is None or subject.recipe is None or subject.path is None:
        return known
    predictor = fit_predictor(subject, subject.recipe.accuracy, subject.recipe.seed, progress)
    keep_beside(subject, predictor)
    return predictor


def keep_beside(subject: Subject, predictor: AccuracyPredictor) -> Path:
    """Keep the supernet's predictor in the supernet's folder; returns its file."""
    if subject.path is None:
        raise UsageError(f"{subject.name}: there is no supernet to keep a predictor beside")
    file = subject.path.with_name(PREDICTOR)
    write_atomic(file, predictor.to_bytes())
    return file


def kept_predictor(subject: Subject) -> AccuracyPredictor | None:
    """The accuracy predictor that is kept beside the supernet; None where there is none, or one of other weights.

    Raises:
        UsageError: it is truncated.
    """
    if subject.path is None or not (file := subject.path.with_name(PREDICTOR)).exists():
        return None
    try:
        predictor = AccuracyPredictor.from_bytes(subject.codec, file.read_bytes())
    except UsageError as error:
        raise UsageError(f"{file}: {error}: remove it, and it comes from the evaluations that are kept") from error
    return predictor if predictor.error.supernet == subject.sha256 else None


def fit_predictor(
    subject: Subject, config: AccuracyConfig, seed: int = 0, progress: Progress | None = None
) -> AccuracyPredictor:
    """Evaluate subnets and fit an accuracy predictor; what was evaluated before is not evaluated again.

    Args:
        config: how many; its images must be those of the supernet's recipe.

    Raises:
        UsageError: the supernet's data is not there; or the proxies that are asked for leave too few subnets.
    """
    if subject.campaign is None or subject.data is None:
        raise UsageError(f"{subject.name}: no subnet can be evaluated: {subject.data_error}")
    keep = None
    if config.min_proxy:
        keep = ProxyGate(subject.codec, subject.data, config.min_proxy, seed).passes
    fitted = Collection(subject.codec, subject.campaign, config, seed, keep, progress).predictor()
    known = {"supernet": subject.sha256} | ({"min_proxy": dict(config.min_proxy)} if config.min_proxy else {})
    return replace(fitted, error=fitted.error.model_copy(update=known))


def subject_facts(subject: Subject) -> dict[str, Any]:
    """What a report says of where the weights come from."""
    return {
        "name": subject.name,
        "supernet_sha256": subject.sha256 if subject.supernet is not None else None,
        "random_weights": subject.random_weights,
        "space": subject.space.to_json(),
        "recipe": subject.recipe.model_dump(mode="json") if subject.recipe else None,
        "source": subject.source,
        "predictor": subject.predictor.error.to_json() if subject.predictor else None,
        "torch": torch.__version__,
    }
