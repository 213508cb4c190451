"""Training throughput of our supernet next to once-for-all's own modules, on the same work.

    python tests/benchmarks/training_throughput.py [--batch 32] [--resolution 160] [--archs 3] [--rounds 8] [--json]
                                                   [--device cuda] [--bf16] [--threads 2]

Both hold the same weights of ofa_mbv3_w1.0. A round takes every arch (the largest and some random ones) through a
training pass, zeroed gradients, forward, cross-entropy and backward, in one of them and at once in the other; which
goes first changes from round to round, so that a busy machine spoils both alike. The answer is the ratio of the medians
over rounds, with its 95 % interval over resampled rounds. Before that, loss and gradients are compared: it is the same
work. Needs the ``ofa`` package (``pip install --no-deps ofa``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.space import Arch, PopulationCodec, load_space
from ofa_deploy.supernet import Supernet
from ofa_deploy.supernet.once_for_all import import_checkpoint
from ofa_deploy.training.torchvision_shim import torchvision_module

SPACE = load_space("ofa_mbv3_w1.0")
Pass = Callable[[Arch], Tensor]


def theirs() -> nn.Module:
    """Once-for-all's supernet as it comes, but without dropout, which would make each pass another one."""
    torchvision_module("transforms")  # what ofa imports, and fails at where torch is a CPU-only build
    try:
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    except ImportError:
        raise SystemExit("skipped: the peer's package is not installed (pip install --no-deps ofa)") from None
    stages, slots = SPACE.stages[0], {"width_mult": 1.0, "dropout_rate": 0}
    choices = {"ks_list": stages.kernels, "expand_ratio_list": stages.expands, "depth_list": stages.depths}
    torch.manual_seed(0)
    return OFAMobileNetV3(**slots, **{name: list(values) for name, values in choices.items()}).train()


def ours(state: dict[str, Tensor]) -> Supernet:
    """Our supernet with a state of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "peer.pth")
        return import_checkpoint(Path(folder) / "peer.pth", SPACE)[0].train()


def passes(peer: nn.Module, own: Supernet, images: Tensor, labels: Tensor, bf16: bool) -> tuple[Pass, Pass]:
    """A training pass of each: gradients from zero on, and the loss."""

    def run(model: nn.Module, *arguments: Any) -> Tensor:
        model.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = F.cross_entropy(model(*arguments), labels)
        loss.backward()
        return loss.detach()

    def of_peer(arch: Arch) -> Tensor:
        peer.set_active_subnet(ks=list(arch.kernels), e=list(arch.expands), d=list(arch.depths))
        return run(peer, images)

    channels_last = images.contiguous(memory_format=torch.channels_last)
    return of_peer, lambda arch: run(own, channels_last, arch)


@torch.no_grad()
def disagreement(peer: nn.Module, own: Supernet, both: tuple[Pass, Pass], arch: Arch) -> dict[str, float]:
    """Relative differences of one arch's loss, and of the whole gradient by its norm."""
    with torch.enable_grad():
        first, second = (float(run(arch)) for run in both)
    gradient = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in peer.named_parameters()}
    expected = dict(ours({**peer.state_dict(), **gradient}).named_parameters())  # the gradients, by our names
    pairs = [
        (expected[name].to(p.device), torch.zeros_like(p) if p.grad is None else p.grad)
        for name, p in own.named_parameters()
    ]
    wanted, found = (torch.cat([value.flatten() for value in column]) for column in zip(*pairs, strict=True))
    return {"loss": abs(first - second) / abs(first), "gradient": float((found - wanted).norm() / wanted.norm())}


def timed(run: Pass, archs: list[Arch], synchronise: Callable[[], None]) -> float:
    """Seconds for all archs."""
    synchronise()
    before = time.perf_counter()
    for arch in archs:
        run(arch)
    synchronise()
    return time.perf_counter() - before


def ratio(seconds: np.ndarray) -> dict[str, Any]:
    """How many times faster column 1 is than column 0, and its 95 % interval."""
    drawn = np.random.default_rng(0).integers(0, len(seconds), (2000, len(seconds)))
    medians = np.median(seconds[drawn], axis=1)
    low, high = np.quantile(medians[:, 0] / medians[:, 1], [0.025, 0.975])
    before, after = np.median(seconds, axis=0)
    return {"ratio": round(before / after, 3), "interval_95": [round(low, 3), round(high, 3)]}


def main() -> None:
    """Compare, and print the throughputs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=160)
    parser.add_argument("--archs", type=int, default=3, help="random archs besides the largest")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="both under autocast; differences are then those of bf16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peer = theirs()
    own = ours(peer.state_dict()).to(options.device)
    peer.to(options.device)
    images = torch.randn(options.batch, 3, options.resolution, options.resolution, device=options.device)
    labels = torch.randint(SPACE.num_classes, (options.batch,), device=options.device)
    codec = PopulationCodec(SPACE)
    archs = [SPACE.largest, *codec.decode(codec.sample(options.archs, np.random.default_rng(0)))]
    both = passes(peer, own, images, labels, options.bf16)
    answer: dict[str, Any] = {"differences": disagreement(peer, own, both, archs[-1])}
    for run in both:
        timed(run, archs, lambda: None)  # whatever is done once
    synchronise = torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None
    seconds = np.zeros((options.rounds, 2))
    for round_ in range(options.rounds):
        for who in (0, 1) if round_ % 2 else (1, 0):
            seconds[round_, who] = timed(both[who], archs, synchronise)
        print(f"round {round_ + 1}: peer {seconds[round_, 0]:.2f} s, ours {seconds[round_, 1]:.2f} s", file=sys.stderr)
    rates = options.batch * len(archs) / np.median(seconds, axis=0)
    answer |= {"images_per_second": dict(zip(("peer", "ours"), rates.round(2).tolist(), strict=True))} | ratio(seconds)
    if options.json:
        print(json.dumps(vars(options) | answer, indent=2))
        return
    print(f"largest relative differences: {answer['differences']}")
    print(f"images/s: peer {rates[0]:.1f}, ours {rates[1]:.1f}")
    print(f"ratio {answer['ratio']} (95 % interval {answer['interval_95'][0]}–{answer['interval_95'][1]})")


if __name__ == "__main__":
    main()
