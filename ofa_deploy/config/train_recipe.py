"""The document of a training: a recipe, with its schedule and its accuracy predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from ofa_deploy.config.data_config import DataConfig
from ofa_deploy.config.yaml_document import Bound, Document, Fraction, Positive, Some

Proxy = Literal["synflow", "grad_norm", "fisher", "naswot"]


class AccuracyConfig(Document):
    """How the accuracy predictor is fitted and tested.

    Attributes:
        subnets: subnets evaluated at most, the held-out ones included; evaluation stops earlier when more do not help.
        heldout: subnets that test the predictor and take no part in fitting it.
        round: subnets evaluated between two fits of the predictor; the first round has twice as many.
        recalibration_images: training images for the batch-norm statistics of each subnet.
        images: held-out images used at most; half to fit on, half for the second look.
        min_proxy: skips candidates that score low on a zero-cost proxy, by name: the share of random subnets that must
            score less.
    """

    subnets: Annotated[int, Field(ge=8)] = 60
    heldout: Annotated[int, Field(ge=3)] = 15
    round: Positive = 32
    recalibration_images: Positive = 1024
    images: Positive = 5000
    min_proxy: dict[Proxy, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _enough_to_fit(self) -> AccuracyConfig:
        if self.subnets - self.heldout < 5:
            raise ValueError(f"subnets: {self.subnets} leave fewer than 5 to fit on beside {self.heldout} heldout ones")
        return self


class PhaseConfig(Document):
    """One phase of the progressive schedule. Lists have an entry for each sub-phase; the last entry serves all others.

    Attributes:
        share: the phase's part of the recipe's epochs, relative to the shares of the other phases.
        lr: peak learning rate, as a multiple of the recipe's ``lr``.
        subnets: random subnets trained in each step.
    """

    share: Some[Bound]
    lr: Some[Bound]
    subnets: Positive = 1


# the epochs and learning rates with which once-for-all's authors trained theirs (their train_ofa_net.py; ICLR 2020, §4)
_PUBLISHED_PHASES: Final[dict[str, dict[str, Any]]] = {
    "largest": {"share": (180,), "lr": (1.0,)},
    "kernel": {"share": (125,), "lr": (0.37,)},
    "depth": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 2},
    "expand": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 4},
    "width": {"share": (25, 125), "lr": (0.03, 0.09), "subnets": 4},
}


class ProgressiveConfig(Document):
    """The phases of ``schedule: progressive``, in order. What you leave out is as once-for-all published it.

    Attributes:
        largest: trains the largest subnet alone.
        kernel: adds smaller kernels.
        depth: adds smaller depths.
        expand: adds smaller expansion ratios.
        width: adds smaller widths.
        distill_ratio: weight of the teacher's soft labels, where the true labels weigh 1.
    """

    largest: PhaseConfig
    kernel: PhaseConfig
    depth: PhaseConfig
    expand: PhaseConfig
    width: PhaseConfig
    distill_ratio: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill in what is published, phase by phase."""
        if not isinstance(given, dict):
            return given
        partial = {name: given.get(name, {}) for name in _PUBLISHED_PHASES}
        filled = {n: {**_PUBLISHED_PHASES[n], **phase} for n, phase in partial.items() if isinstance(phase, dict)}
        return {**given, **filled}


class TrainRecipe(Document):
    """A recipe for ``train-supernet -c FILE``.

    Attributes:
        name: names the supernet in the workspace.
        space: the search space: a preset's name, or keys as in "A search space".
        init: a supernet's file; the largest subnet starts from the weights of the file's largest subnet.
        teacher: a supernet's file whose largest subnet, frozen, teaches from the first step; needs
            ``schedule: progressive``.
        data: the images.
        epochs: passes over the training images.
        batch_size: images per step, over all processes together.
        lr: peak learning rate of SGD with Nesterov momentum.
        warmup_epochs: epochs over which the learning rate rises to its peak.
        momentum: of SGD.
        weight_decay: of SGD.
        label_smoothing: probability spread over the other classes.
        random_subnets: random subnets trained in each step, beside the largest and the smallest.
        sampling: how they are drawn: ``uniform`` in every choice, or ``spread`` evenly over the logarithm of their
            multiply-accumulates, so that small and large ones are trained as often as those between.
        largest_epochs: epochs that train the largest subnet alone at the start; its channels are then sorted by
            importance.
        schedule: ``sandwich`` trains the largest, the smallest and random subnets in each step; ``progressive`` is
            once-for-all's sequence of phases.
        progressive: the phases of ``schedule: progressive``.
        distill: loss between student and teacher: ``kl``, or AlphaNet's α-divergence (``alpha``).
        alpha: the two values of α; the worse of the two counts.
        alpha_clip: bound on the importance ratios of the α-divergence.
        clip_norm: bound on the norm of a step's whole gradient.
        ema: decay of the averaged weights, which are the ones that are evaluated and kept; 0 for none.
        evaluate_every: epochs between evaluations of the largest and the smallest subnet; 0 for none.
        patience: epochs without improvement after which training ends early; 0 for never.
        device: ``auto`` takes a GPU if there is one.
        precision: of the layers in training; weights and evaluations stay fp32.
        compile: uses ``torch.compile``; resumed runs then agree only up to rounding.
        seed: of everything that is random.
        threads: CPU threads, also of evaluations; default: all cores.
        parallel_subnets: subnets of a step that are computed at the same time, each by ``threads`` threads; for images
            so small that more threads of one subnet only wait. On one CPU machine and in one process only; it does not
            change the weights.
        checkpoint_seconds: seconds between checkpoints.
        accuracy: the accuracy predictor.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    space: str | dict[str, Any]
    init: Path | None = None
    teacher: Path | None = None
    data: DataConfig
    epochs: Positive
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.5
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    label_smoothing: Fraction = 0.1
    random_subnets: Annotated[int, Field(ge=0)] = 2
    sampling: Literal["uniform", "spread"] = "uniform"
    largest_epochs: Annotated[float, Field(ge=0)] = 0
    schedule: Literal["sandwich", "progressive"] = "sandwich"
    progressive: ProgressiveConfig = ProgressiveConfig.model_validate({})
    distill: Literal["kl", "alpha"] = "kl"
    alpha: tuple[Annotated[float, Field(lt=0)], Bound] = (-1.0, 1.0)
    alpha_clip: Annotated[float, Field(gt=1)] = 5.0
    clip_norm: Bound | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive | None = None
    parallel_subnets: Positive = 1
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30
    accuracy: AccuracyConfig = AccuracyConfig()

    @model_validator(mode="after")
    def _fits(self) -> TrainRecipe:
        if self.patience and not self.evaluate_every:
            raise ValueError("patience needs evaluate_every: 1 or more, the epochs between two evaluations")
        if self.parallel_subnets > 1 and (self.compile or self.precision != "fp32"):
            raise ValueError("parallel_subnets needs precision: fp32, without compile")
        if self.teacher and self.schedule != "progressive":
            raise ValueError("teacher needs schedule: progressive; in a sandwich the largest subnet teaches")
        return self
