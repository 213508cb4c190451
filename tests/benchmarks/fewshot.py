"""A new device from few whole networks, on published latencies of other people's spaces and devices.

    python tests/benchmarks/fewshot.py --sources FILE.npz --target FILE.npz:DEVICE [--samples 20] [--seeds 10] [--json]

Reads files as HELP's data were published (Lee et al., HELP, NeurIPS 2021): ``devices``, ``arch_index``,
``lat_<device>``, and either ``op_idx`` (its FBNet space) or ``ks, e, d, r, active`` (OFA-MobileNetV3). Every seed
draws candidates among the networks 0–3999, lets the model choose which of them to measure, and tests on the networks
4000–4999; HELP's trim takes the fastest and the slowest tenth of these away. Devices of the target's own chip, at
whatever batch size, are left out of the sources.

``spearman``, ``mape``, ``within_10`` and ``coverage_95`` are over all 1000 test networks, ``spearman_trimmed`` over
the trimmed ones.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ofa_deploy.errors import UsageError
from ofa_deploy.latency.audit_statistics import audit_statistics
from ofa_deploy.latency.posterior import Posterior, Prior, additive_fit, calibration, choose, device_prior, fit

POOL = 4000  # networks before this index may be measured, those from it on are tested
CANDIDATES = 500
REHEARSALS = 3  # times that every source is treated as a new device
FBNET_OPS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
# (layers, channels out, first stride): FBNet, Wu et al., CVPR 2019, table 1, at CIFAR's input of 32 × 32
FBNET_STAGES = ((1, 16, 1), (4, 24, 1), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))
# MobileNetV3-Large, Howard et al., ICCV 2019, as once-for-all searches it: first side is that after the stem
OFA_STAGES = ((4, 24, 2), (4, 40, 2), (4, 80, 2), (4, 112, 1), (4, 160, 2))


@dataclass(frozen=True)
class Block:
    """An inverted residual; expand 0 is the 1 × 1 convolution that stands for a skip where shapes change."""

    channels_in: int
    channels_out: int
    stride: int
    side: int
    kernel: int = 1
    expand: int = 0
    groups: int = 1

    @property
    def cost(self) -> list[float]:
        """1 × 1 MACs, depthwise MACs, activations moved, weights, kernel launches, channel shuffles."""
        area, after = self.side**2, math.ceil(self.side / self.stride) ** 2
        mid, ends = self.channels_in * self.expand, self.channels_in * area + self.channels_out * after
        if not self.expand:
            weights = self.channels_in * self.channels_out
            return [weights * after, 0, ends, weights, 1, 0]
        pointwise = mid * (self.channels_in * area + self.channels_out * after) / self.groups
        weights = mid * ((self.channels_in + self.channels_out) / self.groups + self.kernel**2)
        return [pointwise, mid * self.kernel**2 * after, ends + 2 * mid * (area + after), weights, 3, self.groups - 1]

    @property
    def features(self) -> list[float]:
        """Where the block lies among its like: a unit is about a doubling, or another kernel."""
        shape = [np.log2(self.channels_in * self.channels_out) / 2, np.log2(self.side), np.log2(self.stride)]
        kind = [0, 0, 3] if not self.expand else [self.kernel / 2, np.log2(self.expand) / 1.3, self.groups - 1]
        return [*shape, *kind]


@dataclass(frozen=True)
class Space:
    """Networks as rows ``x [N, J]``, with made-up devices ``[A, J]`` and features ``[J, F]`` of the columns."""

    index: np.ndarray
    x: np.ndarray
    analytic: np.ndarray
    features: np.ndarray


def layers(stages: Sequence[tuple[int, int, int]], channels: int, side: int) -> list[tuple[int, int, int, int]]:
    """Channels in and out, stride and input side of every layer."""
    found = []
    for count, out, first in stages:
        for i in range(count):
            stride = first if i == 0 else 1
            found.append((channels, out, stride, side))
            channels, side = out, math.ceil(side / stride)
    return found


def fbnet(file: Mapping[str, np.ndarray]) -> Space:
    """One column for every different block: layers of one shape share theirs."""
    ops, columns = file["op_idx"], {}
    for position, shape in enumerate(layers(FBNET_STAGES, 16, 32)):
        for number, name in enumerate(FBNET_OPS):
            if name == "skip":
                block = Block(*shape)
            else:
                block = Block(*shape, int(name[1]), int(name[4]), 2 if name.endswith("g2") else 1)
            if name != "skip" or shape[0] != shape[1] or shape[2] != 1:
                columns[block] = columns.get(block, 0) + (ops[:, position] == number)
    x = np.stack([*columns.values(), np.ones(len(ops))], 1).astype(float)
    cost = np.array([[*block.cost, 0] for block in columns] + [[0] * 6 + [1]], float)
    features = np.array([block.features for block in columns] + [[np.nan] * 6])
    return Space(file["arch_index"], x, per_network(cost.T, x), features)


def ofa(file: Mapping[str, np.ndarray]) -> Space:
    """Two columns for every different block: its count, and its count times the area it works on.

    What a block costs at a resolution is a part that does not depend on it (weights, launches) and a part that grows
    with its output's true area: sides are rounded up at every stride, so that area is not proportional to r².
    """
    sides = [np.ceil(file["r"] / 2)]
    for _, _, stride in OFA_STAGES:
        sides.append(np.ceil(sides[-1] / stride))
    largest = [112, 56, 28, 14, 14, 7]
    columns: dict[tuple[Block, int], np.ndarray] = {}
    for position, shape in enumerate(layers(OFA_STAGES, 16, 112)):
        unit = position // 4 + 1
        area = (sides[unit] / largest[unit]) ** 2
        for kernel in (3, 5, 7):
            for expand in (3, 4, 6):
                chosen = file["active"][:, position] * (file["ks"][:, position] == kernel)
                count = (chosen * (file["e"][:, position] == expand)).astype(float)
                for part, value in enumerate((count, count * area)):
                    key = Block(*shape, kernel, expand), part
                    columns[key] = columns.get(key, 0) + value
    ends = [np.ones(len(area)), (file["r"] / 224.0) ** 2, (sides[-1] / 7) ** 2]
    x = np.stack([*columns.values(), *ends], 1)
    by_area = np.array([1, 1, 1, 0, 0, 0])
    cost = [[*(block.cost * (by_area if part else 1 - by_area)), 0, 0] for block, part in columns]
    cost += [[0] * 6 + [1, 0], [0] * 6 + [0, 1], [0] * 8]
    features = [[*block.features, 4 * part] for block, part in columns] + [[np.nan] * 7] * 3
    analytic = np.array(cost, float).T
    return Space(file["arch_index"], x, per_network(analytic[analytic.any(1)], x), np.array(features))


def per_network(analytic: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Made-up devices in units in which a typical network takes 1."""
    return analytic / np.median(x @ analytic.T, axis=0)[:, None]


def read(path: Path) -> tuple[Space, dict[str, np.ndarray]]:
    """The networks of a file and every device's latencies."""
    try:
        with np.load(path, allow_pickle=False) as npz:
            file = {key: npz[key] for key in npz.files}
        space = fbnet(file) if "op_idx" in file else ofa(file)
        return space, {str(name): file[f"lat_{name}"].astype(float) for name in file["devices"]}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not a file of latencies as fewshot.py reads them ({error})") from None


def chip(device: str) -> str:
    """A device's name without its batch size."""
    return re.sub(r"_(1|32|64)$", "", device)


@dataclass(frozen=True)
class Trial:
    """One device that is new: its latencies, and the prior that devices of other chips make."""

    space: Space
    latency: np.ndarray
    prior: Prior

    def run(self, samples: int, seed: int) -> tuple[Posterior, np.ndarray]:
        """The posterior from actively chosen networks, and the rows that are tested."""
        pool = np.flatnonzero((self.space.index < POOL) & np.isfinite(self.latency))
        pool = np.random.default_rng(seed).permutation(pool)[:CANDIDATES]
        chosen = pool[choose(self.prior, self.space.x[pool], samples)]
        x, y = self.space.x[chosen], self.latency[chosen]
        tested = np.flatnonzero((self.space.index >= POOL) & np.isfinite(self.latency))
        return fit(self.prior.scaled_to(x, y), x, y), tested


def prior_of(space: Space, coefficients: Mapping[str, np.ndarray], without: set[str]) -> Prior:
    """The prior from the devices of other chips than those; chips count alike, however often they were measured."""
    names = [name for name in coefficients if chip(name) not in without]
    if not names:
        raise UsageError("no device of another chip among the sources: add some to --sources")
    chips = [chip(name) for name in names]
    weights = np.array([1 / chips.count(one) for one in chips])
    return device_prior(np.stack([coefficients[name] for name in names]), weights, space.analytic, space.features)


def fit_sources(space: Space, latencies: Mapping[str, np.ndarray], without: str) -> dict[str, np.ndarray]:
    """Every source's own additive fit, in units in which a typical network takes 1."""
    found = {}
    for name, latency in latencies.items():
        if chip(name) != without:
            use = (space.index < POOL) & np.isfinite(latency)
            found[name] = additive_fit(space.x[use], latency[use] / np.median(latency[use]))
    return found


def left_out_scale(
    space: Space, latencies: Mapping[str, np.ndarray], coefficients: Mapping[str, np.ndarray], target: str, samples: int
) -> float:
    """The scale of the standard deviation with which the bound would have held on sources treated as new devices."""
    errors = []
    for name in coefficients:
        if {chip(other) for other in coefficients} == {chip(name)}:
            return 1.0
        trial = Trial(space, latencies[name], prior_of(space, coefficients, {chip(target), chip(name)}))
        for seed in range(REHEARSALS):
            posterior, tested = trial.run(samples, seed)
            mean, std = posterior.predict(space.x[tested])
            errors.append((latencies[name][tested] - mean) / std)
    return calibration(errors)


def statistics(mean: np.ndarray, std: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """What is reported of one seed."""
    tenth = len(measured) // 10
    trimmed = np.argsort(measured, kind="stable")[tenth : len(measured) - tenth]
    found = vars(audit_statistics(mean, std, measured))
    found = {**found, "spearman_trimmed": float(spearmanr(mean[trimmed], measured[trimmed]).statistic)}
    return {key: found[key] for key in ("spearman", "spearman_trimmed", "mape", "within_10", "coverage_95")}


def benchmark(sources: Path, target: Path, device: str, samples: int, seeds: int) -> dict[str, float]:
    """Mean over seeds of the statistics of a new device.

    Raises:
        UsageError: a file cannot be read, has another space, or lacks the device.
    """
    (space, latencies), (own_space, own) = read(sources), read(target)
    if device not in own:
        raise UsageError(f"{target}: no device {device}; it has {', '.join(own)}")
    if own_space.x.shape[1] != space.x.shape[1]:
        raise UsageError(f"{target}: its networks are of another space than those of {sources}")
    coefficients = fit_sources(space, latencies, chip(device))
    scale = left_out_scale(space, latencies, coefficients, device, samples)
    trial, found = Trial(own_space, own[device], prior_of(space, coefficients, {chip(device)})), []
    for seed in range(seeds):
        posterior, tested = trial.run(samples, seed)
        mean, std = posterior.predict(own_space.x[tested])
        found.append(statistics(mean, scale * std, own[device][tested]))
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--target", required=True, metavar="FILE.npz:DEVICE")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    file, colon, device = asked.target.rpartition(":")
    try:
        if not colon or asked.samples < 1 or asked.seeds < 1:
            raise UsageError("--target is FILE.npz:DEVICE; --samples and --seeds are at least 1")
        found = benchmark(asked.sources, Path(file), device, asked.samples, asked.seeds)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(found) if asked.json else "\n".join(f"{key:16} {value:.4f}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
