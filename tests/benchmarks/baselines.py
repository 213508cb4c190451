"""Hand-picked networks for Fashion-MNIST on this machine: what they take, and how accurate they get.

    python -m tests.benchmarks.baselines --latency                    the latency of every width, without training
    python -m tests.benchmarks.baselines --max-ms 0.1 --max-ms 0.2    train, extract for both budgets, and compare

Trainings run at the lowest priority on one thread, one after another, and take hours; a second start goes on where the
first one was. Measurements are medians of shuffled rounds in ONNX Runtime on one thread, all networks together, in a
process of usual priority; accuracies are those of the exported files on the 10 000 test images. Without arguments for
names, the networks are those that the documentation shows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

NAMES = (
    *("plain-8-16-32", "resnet-8-16-32", "plain-16-32-64", "resnet-16-32-64"),
    *("mobilenet_v3_small@0.5", "mobilenet_v2@0.35", "shufflenet_v2@0.25", "efficientnet_lite0@0.35"),
)


def latencies(workspace: Path) -> None:
    """Print the latencies of all networks that ``baseline`` chooses from, at all widths; weights are random."""
    from ofa_deploy.api.comparing import NAMES as KNOWN
    from ofa_deploy.fleet import Fleet, resolve_target
    from ofa_deploy.fleet.profiling import network_item
    from ofa_deploy.report.text import count, ms
    from ofa_deploy.space import MULTIPLIERS, families, handpicked, network_macs, network_params
    from ofa_deploy.store import Workspace

    names = [
        f"{name}@{width:g}" if name in families() and width != 1 else name
        for name in KNOWN
        for width in (MULTIPLIERS if name in families() else (1.0,))
    ]
    spaces = [handpicked(name, 28, 1, 10) for name in names]
    networks = [space.network(space.largest) for space in spaces]
    with Workspace.open(workspace) as opened, Fleet.open(opened) as fleet:
        target = resolve_target("local", opened)
        items = [network_item(n, space.largest, target) for n, space in zip(networks, spaces, strict=True)]
        records = fleet.measure(target, items)
    print("| network | latency | MACs | parameters |\n|---|---|---|---|")
    for name, network, record in sorted(zip(names, networks, records, strict=True), key=lambda row: row[2].p50):
        macs, params = count(network_macs(network)), count(network_params(network))
        print(f"| `{name}` | {ms(record.p50)} | {macs} | {params} |")


def train(workspace: Path, names: tuple[str, ...], epochs: int | None) -> None:
    """Train the networks as ``baseline`` does."""
    os.nice(19)
    from ofa_deploy.cli.output import progress
    from ofa_deploy.deploy.baseline_training import train_baseline
    from ofa_deploy.deploy.subject import find_supernet, open_subject
    from ofa_deploy.space import handpicked
    from ofa_deploy.store import Workspace
    from ofa_deploy.training import load_data

    with Workspace.open(workspace) as opened, progress() as tell:
        subject = open_subject(opened, find_supernet(opened, None))
        if subject.recipe is None:
            raise SystemExit("the supernet does not say how it was trained")
        data = load_data(subject.recipe.data)
        for name in names:
            space = handpicked(name, 28, data.in_channels, data.num_classes)
            train_baseline(opened, subject.recipe, data, space, epochs, progress=tell)


def compare(workspace: Path, names: tuple[str, ...], budgets: tuple[float, ...], epochs: int | None) -> None:
    """Print what the networks and the answers for some budgets take and find, and the verdicts."""
    import ofa_deploy
    from ofa_deploy.report.baseline_verdict import by_latency, trained_by
    from ofa_deploy.report.text import accuracy, ms

    for budget in budgets:
        ofa_deploy.extract("local", max_ms=budget, workspace=workspace)
    found = ofa_deploy.baseline("local", names, epochs=epochs, workspace=workspace)
    print("| network | latency | accuracy | trained by |\n|---|---|---|---|")
    for one in by_latency(found.networks):
        shown = (f"`{one.name}`", ms(one.measured_ms), accuracy(one.accuracy, one.n), trained_by(one))
        print(f"| {' | '.join(shown)} |")
    for answer in found.answers:
        shown = (
            f"ours, for {ms(answer.asked_ms)}",
            ms(answer.measured_ms),
            accuracy(answer.accuracy, answer.n),
            "search",
        )
        print(f"| {' | '.join(shown)} |")
    for answer in found.answers:
        print(f"\nfor {ms(answer.asked_ms)}: {answer.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--latency", action="store_true", help="measure only")
    parser.add_argument("--max-ms", type=float, action="append", default=[])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--workspace", type=Path, default=Path(".ofa"))
    asked = parser.parse_args()
    if asked.latency:
        latencies(asked.workspace)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    names = tuple(asked.names)
    process = multiprocessing.get_context("spawn").Process(target=train, args=(asked.workspace, names, asked.epochs))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)
    compare(asked.workspace, names, tuple(asked.max_ms), asked.epochs)


if __name__ == "__main__":
    main()
