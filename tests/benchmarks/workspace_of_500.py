"""What much that was measured costs a workspace: fits, reports, verification, audits, a pipeline with nothing to do.

    OMP_NUM_THREADS=1 python tests/benchmarks/workspace_of_500.py [--networks 500] [--supernet NAME] [--json]

Measures random networks of a supernet on a simulated device, extracts a bundle from what the workspace then knows, and
times each step: seconds on the clock and of the processor. The fit of a larger space is timed on made-up measurements.
One thread each: on a busy machine, torch's threads would wait for each other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ofa_deploy.blocks import counts
from ofa_deploy.config import read_document
from ofa_deploy.deploy.audits import newest_audit
from ofa_deploy.deploy.bundling import PARITY_IMAGES, build_bundle
from ofa_deploy.deploy.extract import extract
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.report_making import build_report
from ofa_deploy.deploy.subject import load_subject
from ofa_deploy.deploy.verification import tested
from ofa_deploy.export import parity, preprocessing, runner, verify_bundle
from ofa_deploy.fleet import Fleet, resolve_target
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.latency import LatencyModel, LatencyTable, Row, left_out
from ofa_deploy.latency_models import load_model, load_table
from ofa_deploy.pipeline.document import PipelineDocument
from ofa_deploy.pipeline.runner import run_pipeline
from ofa_deploy.report import render_html, render_markdown
from ofa_deploy.search import Constraints
from ofa_deploy.space import PopulationCodec, SearchSpace, load_space
from ofa_deploy.store import Workspace
from ofa_deploy.supernet.checkpoint import load_supernet

TARGET = "jetson_nano"
LARGER = "ofa_mbv3_w1.0"  # at the resolution
RESOLUTION = 224
TOGETHER = 25  # networks that are measured in a session


class Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        """Do a step."""
        clock, processor = time.monotonic(), time.process_time()
        answer = step()
        spent = {"seconds": time.monotonic() - clock, "processor_seconds": time.process_time() - processor}
        self.steps.append({"step": name, **spent})
        words = f"{name:<45}{spent['seconds']:8.2f} s {spent['processor_seconds']:8.2f} s of the processor"
        print(words, file=sys.stderr, flush=True)
        return answer


def made_up(space: SearchSpace, networks: int) -> LatencyTable:
    """A table of a device that exists nowhere: its blocks' latencies, and networks measured in sessions."""
    codec, rng = PopulationCodec(space), np.random.default_rng(0)
    true = {op.key: (0.005 + counts.macs(op.block) / 4e8) * rng.lognormal(0, 0.2) for op in codec.ops}

    def row(key: str, ops: tuple[str, ...], ms: float, at: str) -> Row:
        return Row(key, ops, 1.02 * ms, 1.05 * ms, 1.1 * ms, 72, 0.02, 0.005, (), at, ms, 0.005)

    blocks = {key: row(key, (key,), ms * rng.normal(1, 0.03), "2026-01-01T00:00:00Z") for key, ms in true.items()}
    levels, whole = rng.lognormal(0, 0.015, networks // TOGETHER + 1), dict[str, Row]()
    for i, arch in enumerate(codec.decode(codec.sample(networks, rng))):
        network, session = space.network(arch), i // TOGETHER
        ms = sum(true[key] for key in network.unit_keys) * levels[session] * rng.lognormal(0.07, 0.01)
        whole[network.key] = row(network.key, tuple(network.unit_keys), ms, f"2026-01-02T{session:06d}Z")
    return LatencyTable("made-up", {"runtime": "onnxruntime"}, blocks, whole)


def pipeline(supernet: str) -> dict[str, Any]:
    """One that profiles, audits and extracts for three budgets."""
    stages = [
        {"stage": "import", "supernet": supernet},
        {"stage": "profile", "networks": 10},
        {"stage": "audit", "networks": 12},
        {"stage": "extract", "spread": 3},
    ]
    return {"name": "of-many", "targets": {TARGET: None}, "stages": stages}


def measure(clock: Clock, folder: Path, supernet: str, networks: int) -> None:
    """Time every step in a workspace that knows so many networks."""
    document = read_document(PipelineDocument, pipeline(supernet))
    target, file = resolve_target(TARGET), Path("supernets") / supernet / "supernet.safetensors"
    space = load_supernet(file)[0].space
    codec = PopulationCodec(space)
    archs = codec.decode(np.unique(codec.sample(networks, np.random.default_rng(0)), axis=0))
    with Workspace.open(folder) as workspace:
        with Fleet.open(workspace) as fleet:
            fleet.measure(target, [network_item(space.network(arch), arch, target) for arch in archs])
        done = clock("first pipeline", lambda: run_pipeline(document, workspace, lambda *_: None))
        if done.error:
            raise done.error
        again = clock("pipeline that skips all", lambda: run_pipeline(document, workspace, lambda *_: None))
        if {unit.status for unit in again.units} != {"skipped"}:
            raise RuntimeError(f"not all was skipped: {again.units}")
        table = clock("load the table", lambda: load_table(workspace, target))
        print(f"{len(table.rows)} blocks and {len(table.networks)} networks of {space.name}")
        model = clock("fit", lambda: LatencyModel(table))
        clock("the report's networks, each without itself", lambda: left_out(model))
        problems = clock("verify a bundle", lambda: verify_bundle(Path(done.reports[0]["bundle"])))
        if problems:
            raise RuntimeError(f"a bundle does not verify: {problems}")
        clock("load and fit what predicts a space", lambda: load_model(workspace, target, space))
        subject = load_subject(workspace, file)
        budget = Constraints(max_ms=done.reports[1]["budget"]["max_ms"])
        with Fleet.open(workspace) as fleet:
            clock("audit on 30 networks", lambda: audit(fleet, workspace, target, space, 30))
            found = clock(
                "extract: search, measure, choose", lambda: extract(fleet, workspace, Order(subject, target, budget))
            )
        run = runner(target)[1]
        images = subject.images(found.chosen.point.arch, PARITY_IMAGES)
        checked = parity(found.chosen.subnet, found.chosen.onnx, images, run)
        test = clock("accuracy on the test images, twice", lambda: tested(subject, found.chosen, run, "test"))
        known = newest_audit(workspace, found)
        how = preprocessing(subject.preprocessing(found.chosen.point.arch), target.batch)
        facts = (checked.figures, test, "a benchmark", known, len(found.chosen.onnx), how)
        report = clock("extract's report", lambda: build_report(found, *facts))
        clock("its pages", lambda: (render_html(report), render_markdown(report)))
        clock("all of the bundle", lambda: build_bundle(found, folder / "bundle", "a benchmark", known))


def main() -> None:
    """Time all, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--supernet", default="fashion_mnist_boxed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    clock = Clock()
    with TemporaryDirectory() as folder:
        measure(clock, Path(folder) / ".ofa", asked.supernet, asked.networks)
    table = made_up(load_space(LARGER).with_resolutions((RESOLUTION,)), asked.networks)
    model = clock(f"fit {LARGER}@{RESOLUTION}", lambda: LatencyModel(table))
    clock(f"{LARGER}@{RESOLUTION}, each network without itself", lambda: left_out(model))
    if asked.json:
        print(json.dumps(clock.steps, indent=1))


if __name__ == "__main__":
    main()
