"""Training the network that was derived, from scratch, with an auxiliary head and drop-path
(DARTS, Liu et al., ICLR 2019, §3.1.2, after NASNet, Zoph et al., CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.notices import Progress
from ofa_deploy.space import CellSpace, Genotype
from ofa_deploy.space.cells import is_edge, output_of, reductions
from ofa_deploy.supernet import Header, Subnet, read_tensors, write_tensors
from ofa_deploy.training import Evaluation, batches, evaluate, load_data, prepare
from ofa_deploy.training.guards import tally
from ofa_deploy.training.optimiser import Optimiser
from ofa_deploy.training.same_recipe import check_same
from ofa_deploy.training.trainer import Batch, Checkpoint, Loop, Outcome, trained

RESULT, CHECKPOINT, METRICS = "network.safetensors", "checkpoint.safetensors", "metrics.jsonl"
NETWORK_KIND, CHECKPOINT_KIND = "cell network", "cell training checkpoint"
AUXILIARY = (128, 768)  # channels of the auxiliary head, as published
BATCH = 256


@dataclass
class TrainedNetwork:
    """A trained cell network.

    Attributes:
        subnet: in evaluation mode.
        summary: of its training; ``valid`` and ``test`` are accuracies.
    """

    space: CellSpace
    subnet: Subnet
    summary: Header


def load_network(path: Path) -> TrainedNetwork:
    """Read what ``train_network`` wrote.

    Raises:
        UsageError: the file is missing, truncated or foreign.
    """
    header, tensors = read_tensors(path / RESULT if path.is_dir() else path, NETWORK_KIND)
    space = CellSpace.from_json(header["space"])
    subnet = Subnet(space.network(space.largest))
    subnet.load_weights({name: value.numpy() for name, value in tensors.items()})
    return TrainedNetwork(space, subnet.eval(), header["summary"])


class AuxiliaryHead(nn.Module):
    """A second classifier, which exists in training only: ReLU, pooling to 2×2, two convolutions, linear."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        narrow, wide = AUXILIARY
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 2, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, h, w] -> [N, classes]``."""
        return self.classifier(self.features(x).flatten(1))


class Trainee(nn.Module):
    """A cell network with what exists in training only."""

    def __init__(self, space: CellSpace, auxiliary: bool) -> None:
        super().__init__()
        arch = space.largest
        self.subnet = Subnet(space.network(arch))
        self._tapped = output_of(reductions(arch.cells)[1])
        tapped = self.subnet.network.ops[self.subnet.network.names.index(self._tapped)]
        self.auxiliary = AuxiliaryHead(tapped.cout, space.num_classes) if auxiliary else None

    def forward(self, x: Tensor, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary head's.

        Args:
            drop: probability that an edge's operation gives nothing for an image.
        """
        tapped: list[Tensor] = []

        def after(name: str, y: Tensor) -> Tensor:
            if name == self._tapped:
                tapped.append(y)
            if not (drop and is_edge(name)):
                return y
            kept = torch.rand(len(y), generator=generator).to(y.device) >= drop
            return y * (kept / (1 - drop)).view(-1, 1, 1, 1)

        logits = self.subnet(x, after)
        return logits, None if self.auxiliary is None else self.auxiliary(tapped[0])


def train_network(
    recipe: DartsRecipe, genotype: Genotype, folder: Path, resume: bool = False, report: Progress | None = None
) -> TrainedNetwork:
    """Train a genotype's network from scratch, or finish what a kill interrupted (``trainer.trained``).

    Args:
        folder: receives ``network.safetensors``, ``metrics.jsonl`` and, until the end, ``checkpoint.safetensors``.
        report: called after every step with done, total and the step's figures.

    Raises:
        UsageError: another recipe's network is here, or an unfinished training is and ``resume`` was not asked for.
        OfaDeployError: a guard stops it (``guards.Guards.check``), or the folder cannot be written.
    """
    result = folder / RESULT
    identity: Header = {"recipe": {**recipe.identity("train"), "genotype": genotype.to_json()}}
    if result.exists():
        found = load_network(result)
        check_same(result, found.summary, identity)
        return found
    checkpoint = Checkpoint(folder / CHECKPOINT, CHECKPOINT_KIND, identity, metrics=folder / METRICS)
    steps = recipe.steps(recipe.train, recipe.train.epochs)
    with trained(lambda _: _Retraining(recipe, steps, genotype), steps, checkpoint, resume, report) as run:
        subnet, summary = run.conclude()
        network = TrainedNetwork(run.space, subnet, {**identity, **summary})
        header = {"kind": NETWORK_KIND, "space": run.space.to_json(), "summary": network.summary}
        write_tensors(result, {n: torch.from_numpy(v) for n, v in subnet.weights().items()}, header)
    return network


class _Retraining(Loop):
    """A cell network, with what exists in training only."""

    model: Trainee

    def __init__(self, darts: DartsRecipe, steps: TrainRecipe, genotype: Genotype) -> None:
        self.darts, self.config = darts, darts.train
        data = load_data(darts.data)
        super().__init__(steps, data, data.train)
        self.space = darts.space(genotype, data.in_channels, data.num_classes)
        torch.manual_seed(darts.seed)
        self.model = Trainee(self.space, self.config.auxiliary > 0).to(self.device)
        self.optimiser = Optimiser(dict(self.model.named_parameters()), steps)

    def gradients(self, batch: Batch, rate: float) -> Outcome:
        config, (images, labels) = self.config, batch
        generator = torch.Generator().manual_seed(self.darts.seed * 1_000_003 + self.step)
        x = prepare(images, self.darts.resolution, self.data.mean, self.data.std)
        logits, auxiliary = self.model(x, config.drop_path * self.step / self.total, generator)
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        losses, whole = {"loss": loss.item()}, loss
        if auxiliary is not None:
            extra = F.cross_entropy(auxiliary, labels, label_smoothing=config.label_smoothing)
            losses["auxiliary"], whole = extra.item(), loss + config.auxiliary * extra
        whole.backward()
        return Outcome(losses, {"network": tally(logits, labels)})

    def conclude(self) -> tuple[Subnet, Header]:
        """The network, and the summary of its training, with its accuracies."""
        subnet = self.model.subnet.eval()
        evaluations = {split: self._evaluated(split) for split in ("valid", "test")}
        summary = {
            "data": self.darts.data.model_dump(mode="json"),
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "fingerprint": self.data.fingerprint,
            "seconds": round(self.seconds, 1),
            "steps": self.step,
            **{split: evaluation.accuracy for split, evaluation in evaluations.items()},
            "images": {split: evaluation.n for split, evaluation in evaluations.items()},
        }
        return subnet.cpu(), summary

    def _evaluated(self, split: str) -> Evaluation:
        images = getattr(self.data, split)
        return evaluate(self.model.subnet, batches(images, self.darts.resolution, BATCH, self.data.mean, self.data.std))
