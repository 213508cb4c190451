"""The recipe of a search for cells and of the training of what it finds."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ofa_deploy.config import Bound, DataConfig, Document, Fraction, Positive, TrainRecipe
from ofa_deploy.json_types import JSON
from ofa_deploy.space import CellSpace, Genotype

Cells = Annotated[int, Field(ge=3)]  # with fewer none is normal
Even = Annotated[int, Field(ge=2, multiple_of=2)]
CANDIDATES = 8  # operations of an edge, ``none`` among them


class SearchStage(Document):
    """A part of the search, on a network of its own depth.

    Attributes:
        epochs: epochs of this part.
        cells: cells of its network.
        operations: operations left on every edge.
    """

    epochs: Positive
    cells: Cells
    operations: Annotated[int, Field(ge=2, le=CANDIDATES)] = CANDIDATES


class CellSearch(Document):
    """The bilevel search; the defaults are those of DARTS (§3.1), but for its length.

    Attributes:
        epochs: length of the search, where there are no ``stages``.
        cells: cells of its network, where there are no ``stages``.
        stages: several networks, each deeper and with fewer operations on an edge than the one before (P-DARTS, Chen et
            al., ICCV 2019, §3.2); the operations with the least weight are dropped.
        channels: channels of the first cell.
        batch_size: images per step.
        lr: learning rate of the weights' SGD at the start; it falls by a cosine.
        lr_min: learning rate of the weights' SGD at the end.
        momentum: of the weights' SGD.
        weight_decay: of the weights' SGD.
        clip_norm: bound on the norm of the weights' gradient.
        arch_lr: learning rate of the architecture's Adam.
        arch_weight_decay: weight decay of the architecture's Adam.
        order: of the bilevel gradient: ``first`` treats the weights as optimal, ``second`` looks one step ahead.
        frozen_epochs: epochs at the start of each stage in which only the weights learn.
        partial: one in this many channels goes through the operations (PC-DARTS, Xu et al., ICLR 2020, §3.2).
        relaxation: operations share an edge by ``softmax``, or each has its own ``sigmoid`` (FairDARTS, Chu et al.,
            ECCV 2020, §4).
        zero_one: weight of FairDARTS' loss that drives sigmoids to 0 or 1.
        auxiliary_skip: adds a skip connection to every edge that fades out (DARTS-, Chu et al., ICLR 2021, §3.3).
        max_skips: skip connections of the derived normal cell, at most.
        stop_skips: the search ends when its normal cell has this many skips (DARTS+, Liang et al., 2019, §3.3).
        stop_eigenvalue: the search ends when the dominant eigenvalue of the validation loss' Hessian has grown: its
            mean over ``window`` epochs, ``window`` epochs ago, is less than this share of the mean now (Zela et al.,
            ICLR 2020, §4.3, with 0.75).
        window: epochs of ``stop_eigenvalue``'s mean.
    """

    epochs: Positive = 50
    cells: Cells = 8
    stages: tuple[SearchStage, ...] = ()
    channels: Even = 16
    batch_size: Positive = 64
    lr: Bound = 0.025
    lr_min: Annotated[float, Field(ge=0)] = 0.001
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 3e-4
    clip_norm: Bound = 5.0
    arch_lr: Bound = 3e-4
    arch_weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    order: Literal["first", "second"] = "first"
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    partial: Positive = 1
    relaxation: Literal["softmax", "sigmoid"] = "softmax"
    zero_one: Annotated[float, Field(ge=0)] = 0.0
    auxiliary_skip: bool = False
    max_skips: Annotated[int, Field(ge=0)] | None = None
    stop_skips: Positive | None = None
    stop_eigenvalue: Annotated[float, Field(gt=0, lt=1)] | None = None
    window: Positive = 5

    @model_validator(mode="after")
    def _fits(self) -> CellSearch:
        if self.channels % self.partial:
            raise ValueError(f"channels {self.channels} cannot be divided by partial {self.partial}")
        if self.zero_one and self.relaxation != "sigmoid":
            raise ValueError("zero_one needs relaxation: sigmoid")
        left = [stage.operations for stage in self.stages]
        if left != sorted(left, reverse=True):
            raise ValueError("stages: operations can only become fewer")
        return self

    @property
    def plan(self) -> tuple[SearchStage, ...]:
        """The stages; one where none are given."""
        return self.stages or (SearchStage(epochs=self.epochs, cells=self.cells),)

    def rate_at(self, done: float) -> float:
        """The learning rate of the weights when a share of a stage is done."""
        return self.lr_min + (self.lr - self.lr_min) * 0.5 * (1 + math.cos(math.pi * done))


class CellTraining(Document):
    """The training of a derived network. Keys mean what they mean in ``train-supernet``'s recipes.

    Attributes:
        cells: cells of the network.
        channels: channels of the first cell.
        epochs: passes over the training images.
        batch_size: images per step.
        lr: peak learning rate of SGD.
        warmup_epochs: epochs over which the learning rate rises to its peak.
        momentum: of SGD.
        weight_decay: of SGD.
        label_smoothing: probability spread over the other classes.
        clip_norm: bound on the norm of a step's whole gradient.
        auxiliary: weight of the loss of a second classifier at two thirds of the network; 0 for none.
        drop_path: probability that an edge is dropped for an image; it grows from 0 to this value.
    """

    cells: Cells = 20
    channels: Even = 36
    epochs: Positive = 600
    batch_size: Positive = 96
    lr: Bound = 0.025
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 3e-4
    label_smoothing: Fraction = 0.0
    clip_norm: Bound | None = 5.0
    auxiliary: Annotated[float, Field(ge=0)] = 0.4
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2


class DartsRecipe(Document):
    """A recipe for ``darts search -c FILE`` and ``darts train -c FILE``.

    Attributes:
        name: names the results.
        data: the images, as in a recipe for ``train-supernet``.
        resolution: side of the images in pixels, a multiple of 4.
        nodes: intermediate nodes of a cell.
        seed: of everything that is random.
        device: ``auto`` takes a GPU if there is one.
        threads: CPU threads; default: all cores.
        checkpoint_seconds: seconds between checkpoints.
        search: the search for cells.
        train: the training of the cells' network.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    data: DataConfig
    resolution: Annotated[int, Field(ge=8, le=1024, multiple_of=4)]
    nodes: Annotated[int, Field(ge=1, le=7)] = 4
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30
    search: CellSearch = CellSearch()
    train: CellTraining = CellTraining()

    def steps(self, part: CellSearch | CellTraining, epochs: int, seed: int = 0) -> TrainRecipe:
        """What ``training`` needs to know of one of the two parts; its space is not a supernet's.

        Args:
            seed: added to the recipe's, where two streams of images must differ.
        """
        shared = {name: getattr(part, name) for name in ("batch_size", "lr", "momentum", "weight_decay", "clip_norm")}
        shared |= {name: getattr(self, name) for name in ("name", "data", "device", "threads", "checkpoint_seconds")}
        warm = part.warmup_epochs if isinstance(part, CellTraining) else 0
        return TrainRecipe(space={}, epochs=epochs, warmup_epochs=warm, seed=self.seed + seed, **shared)

    def space(self, genotype: Genotype, in_channels: int, num_classes: int) -> CellSpace:
        """The family of the one network that is trained."""
        sizes = ((self.resolution,), (self.train.channels,), (self.train.cells,))
        return CellSpace(self.name, genotype, *sizes, in_channels, num_classes)

    def identity(self, part: Literal["search", "train"]) -> dict[str, JSON]:
        """What must not change between a kill of one part and its resume."""
        whole = self.model_dump(mode="json")
        names = ("name", "resolution", "nodes", "seed", part)
        images = {k: v for k, v in whole["data"].items() if k not in ("root", "workers", "corrupt_limit")}
        return {**{name: whole[name] for name in names}, "data": images}
