"""Training the network that was derived, from scratch: the parts of ``training``, with an auxiliary head and drop-path
(DARTS, Liu et al., ICLR 2019, §3.1.2, after NASNet, Zoph et al., CVPR 2018)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import CellSpace, Genotype
from ofa_deploy.space.cells import is_edge, output_of, reductions
from ofa_deploy.supernet import Subnet, read_tensors, write_tensors
from ofa_deploy.training import ALONE, Data, Evaluation, batches, evaluate, load_data, prepare
from ofa_deploy.training.data import check_unchanged
from ofa_deploy.training.devices import choose_device
from ofa_deploy.training.guards import Guards, tally
from ofa_deploy.training.loop import torch_settings
from ofa_deploy.training.sampling import steps_per_epoch, train_batches
from ofa_deploy.training.schedules import Rate
from ofa_deploy.training.state import keep_metrics

Report = Callable[[dict[str, Any]], None]
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
    summary: dict[str, Any]


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
    recipe: DartsRecipe, genotype: Genotype, folder: Path, resume: bool = False, report: Report | None = None
) -> TrainedNetwork:
    """Train a genotype's network from scratch, or finish what a kill interrupted: to the same bits on a CPU.

    Args:
        folder: receives ``network.safetensors``, ``metrics.jsonl`` and, until the end, ``checkpoint.safetensors``.
        report: called after every step with done, total and the step's figures.

    Raises:
        UsageError: another recipe's network is here, or an unfinished training is and ``resume`` was not asked for.
        OfaDeployError: a guard stops it (``training.guards``), or the folder cannot be written.
    """
    result, checkpoint = folder / RESULT, folder / CHECKPOINT
    identity = {**recipe.identity("train"), "genotype": genotype.to_json()}
    if result.exists():
        found = load_network(result)
        _check_same(result, found.summary["recipe"], identity)
        return found
    if checkpoint.exists() and not resume:
        raise UsageError(f"{checkpoint} is an unfinished training: pass --resume to continue it, or remove {folder}")
    with torch_settings(recipe.threads):
        run = _Training(recipe, genotype, folder, identity, report)
        if checkpoint.exists():
            run.restore()
        run.run()
        trained = run.conclude()
    header = {"kind": NETWORK_KIND, "space": trained.space.to_json(), "summary": trained.summary}
    write_tensors(result, {n: torch.from_numpy(v) for n, v in trained.subnet.weights().items()}, header)
    checkpoint.unlink(missing_ok=True)
    return trained


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            raise UsageError(f"{path} was trained with another {key}; restore it, or choose another folder with -o")


class _Training:
    """One training: data, network, optimiser."""

    def __init__(
        self, recipe: DartsRecipe, genotype: Genotype, folder: Path, identity: dict[str, Any], report: Report | None
    ) -> None:
        self.recipe, self.config, self.identity, self.report = recipe, recipe.train, identity, report
        self.checkpoint, self.metrics = folder / CHECKPOINT, folder / METRICS
        self.data: Data = load_data(recipe.data)
        self.device = choose_device(recipe.device, ALONE)
        self.space = recipe.space(genotype, self.data.in_channels, self.data.num_classes)
        torch.manual_seed(recipe.seed)
        self.model = Trainee(self.space, self.config.auxiliary > 0).to(self.device)
        self.images = recipe.steps(self.config, self.config.epochs)
        self.per_epoch = steps_per_epoch(self.images, self.data.train)
        self.total = self.config.epochs * self.per_epoch
        self.rate = Rate(0, self.total, self.config.warmup_epochs * self.per_epoch, self.config.lr)
        self.guards = Guards(self.data.num_classes, watch_from=round((self.config.warmup_epochs + 1) * self.per_epoch))
        self.sgd = torch.optim.SGD(
            self.model.parameters(),
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )
        for parameter in self.model.parameters():
            self.sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.step, self.seconds = 0, 0.0

    def run(self) -> None:
        """All steps from the restored one on."""
        keep_metrics(self.metrics, self.step)
        started = saved = time.monotonic() - self.seconds
        self.model.train()
        with self.metrics.open("a", encoding="utf-8", buffering=1) as log:
            for images, labels in train_batches(self.data.train, self.images, self.step):
                if self.step >= self.total:
                    break
                line = self._step(images.to(self.device), labels.to(self.device))
                log.write(json.dumps(line) + "\n")
                now = time.monotonic()
                self.seconds = now - started
                if now - saved >= self.recipe.checkpoint_seconds and not self.guards.suspicious:
                    self.save()
                    saved = now
                if self.report is not None:
                    self.report({"done": line.pop("step"), "total": self.total, **line})

    def _step(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        config, rate = self.config, self.rate.at(self.step)
        self.sgd.param_groups[0]["lr"] = rate
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        x = prepare(images, self.recipe.resolution, self.data.mean, self.data.std)
        logits, auxiliary = self.model(x, config.drop_path * self.step / self.total, generator)
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        whole = loss
        if auxiliary is not None:
            extra = F.cross_entropy(auxiliary, labels, label_smoothing=config.label_smoothing)
            whole = loss + config.auxiliary * extra
        hits = tally(logits, labels)
        self.guards.check(self.step + 1, {"loss": loss.item(), "whole": whole.item()}, {"network": hits}, config.lr)
        self.sgd.zero_grad()
        whole.backward()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.sgd.step()
        self.step += 1
        accuracy = hits["hits"] / hits["count"]
        epoch = (self.step - 1) // self.per_epoch + 1
        return {"step": self.step, "epoch": epoch, "lr": rate, "loss": loss.item(), "accuracy": accuracy}

    def conclude(self) -> TrainedNetwork:
        """The network, with its accuracies."""
        subnet = self.model.subnet.eval()
        evaluations = {split: self._evaluated(split) for split in ("valid", "test")}
        summary = {
            "recipe": self.identity,
            "data": self.recipe.data.model_dump(mode="json"),
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "fingerprint": self.data.fingerprint,
            "seconds": round(self.seconds, 1),
            "steps": self.step,
            **{split: evaluation.accuracy for split, evaluation in evaluations.items()},
            "images": {split: evaluation.n for split, evaluation in evaluations.items()},
        }
        return TrainedNetwork(self.space, subnet.cpu(), summary)

    def _evaluated(self, split: str) -> Evaluation:
        images = getattr(self.data, split)
        return evaluate(
            self.model.subnet, batches(images, self.recipe.resolution, BATCH, self.data.mean, self.data.std)
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        named = self.model.named_parameters()
        return tensors | {f"momentum.{name}": self.sgd.state[p]["momentum_buffer"] for name, p in named}

    def save(self) -> None:
        """Write all that the next step depends on."""
        header = {"kind": CHECKPOINT_KIND, "recipe": self.identity, "fingerprint": self.data.fingerprint}
        write_tensors(self.checkpoint, self._tensors(), {**header, "step": self.step, "seconds": self.seconds})

    def restore(self) -> None:
        """Go on where ``save`` was.

        Raises:
            UsageError: the checkpoint is of another recipe or genotype, or damaged.
        """
        header, tensors = read_tensors(self.checkpoint, CHECKPOINT_KIND)
        _check_same(self.checkpoint, header["recipe"], self.identity)
        now, then = self.data.fingerprint, header["fingerprint"]
        check_unchanged(self.data.name, now, then, f"{self.checkpoint} was written")
        with torch.no_grad():
            for name, value in self._tensors().items():
                value.copy_(tensors[name])
        self.step, self.seconds = int(header["step"]), float(header["seconds"])
