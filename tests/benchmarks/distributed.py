"""Two processes against one over the first steps of a training, then random kills against an uninterrupted run.

python tests/benchmarks/distributed.py [--kills 6] [--processes 2] [--seed 0]

Trains a small supernet on scikit-learn's digits through ``torchrun``, on this machine's CPU; prints two tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

STAGES = [
    {"width": 8, "depths": [1, 2], "kernels": [3, 5], "expands": [2, 3]},
    {"width": 16, "stride": 2, "act": "hswish", "se": True, "depths": [1, 2], "kernels": [3], "expands": [2, 3]},
]
SPACE = {"name": "dwarf", "stages": STAGES, "resolutions": [16, 20], "widths": [1.0], "in_channels": 1}
SPACE |= {"num_classes": 10, "first_block": False, "head_width": 32, "feature_width": 0}
RECIPE = {"name": "dwarf", "space": SPACE, "data": {"name": "digits", "valid": 237, "augment": ["crop"]}}
RECIPE |= {"batch_size": 200, "checkpoint_seconds": 0, "threads": 1}
RECIPE |= {"accuracy": {"subnets": 8, "heldout": 3, "recalibration_images": 600, "images": 200}}
FIRST_STEPS = (1, 2, 3, 4)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.processes)
        survive(Path(folder), options.processes, options.kills, random.Random(options.seed))


def start(folder: Path, processes: int, **changes: object) -> subprocess.Popen[str]:
    """Train in a folder; resume what is there."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE | changes))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["--workspace", str(folder), "train-supernet", "-c", str(folder / "recipe.yaml"), "--resume"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "ofa_deploy", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for success."""
    error = process.communicate()[1]
    if process.returncode:
        sys.exit(error)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What was trained."""
    return load_file(folder / "supernets" / "dwarf" / "supernet.safetensors")


def lines(folder: Path) -> list[dict]:
    """The metrics of every step."""
    file = folder / "supernets" / "dwarf" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a trained weight."""
    return max(float((one[name] - other[name]).abs().max()) for name in one if "running" not in name)


def compare(folder: Path, processes: int) -> None:
    """Weights after 1, 2, … steps, each from its own short training."""
    print("| steps | largest difference of a weight | of the losses | the same for two threads, not one: weight |")
    print("|---|---|---|---|")
    for steps in FIRST_STEPS:
        # one epoch of so many whole batches: the data set has 1200 training images
        changes = {"epochs": 1, "batch_size": 1200 // steps - 1}
        runs = {"one": (1, 1), "threads": (1, 2), "many": (processes, 1)}
        for name, (count, threads) in runs.items():
            finish(start(folder / f"{name}{steps}", count, threads=threads, **changes))
        one, threads, many = (folder / f"{name}{steps}" for name in runs)
        pairs = list(zip(lines(one), lines(many), strict=True))
        losses = max(abs(a[key] - b[key]) for a, b in pairs for key in ("loss", "distill"))
        weight, natural = apart(weights(one), weights(many)), apart(weights(one), weights(threads))
        print(f"| {len(pairs)} | {weight:.1e} | {losses:.1e} | {natural:.1e} |", flush=True)


def survive(folder: Path, processes: int, kills: int, rng: random.Random) -> None:
    """Kill a process, all of them or torchrun itself at random moments; resume each time."""
    finish(start(folder / "whole", processes, epochs=4))
    print(f"\n| killed, of {processes} processes | after step | the others ended after | orphans |\n|---|---|---|---|")
    steps = len(lines(folder / "whole"))
    for number in range(kills):
        running = start(folder / "killed", processes, epochs=4)
        until = (number + 1) * steps // (kills + 1)
        while running.poll() is None and len(lines(folder / "killed")) < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        report(folder / "killed", running, rng.choice(["one", "all", "torchrun"]), rng)
    finish(start(folder / "killed", processes, epochs=4))
    one, other = weights(folder / "whole"), weights(folder / "killed")
    same = all(torch.equal(one[name], other[name]) for name in one)
    print(
        f"\nthe weights after {kills} kills and those of an uninterrupted run: {'identical' if same else 'DIFFERENT'}"
    )
    sys.exit(not same)


def report(folder: Path, running: subprocess.Popen[str], which: str, rng: random.Random) -> None:
    """Kill, and say how long the rest lived on."""
    ranks = children(running.pid)
    victims = {"one": [rng.choice(ranks)], "all": ranks, "torchrun": [running.pid]}[which] if ranks else []
    step = len(lines(folder))
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    running.communicate()
    while any(alive(rank) for rank in ranks) and time.monotonic() - killed < 60:
        time.sleep(0.05)
    orphans = sum(map(alive, ranks))
    print(f"| {which} | {step} | {time.monotonic() - killed:.1f} s | {orphans} |", flush=True)


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    main()
