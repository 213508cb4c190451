"""Three runtimes of this machine as three devices: a network made for each, measured on all.

    python tests/benchmarks/three_runtimes.py [--space ofa_mbv3_w1.0] [--resolution 160] [--budget 0.35] [--json]

The devices are ONNX Runtime on one thread, OpenVINO on two, and ONNX Runtime Web (WebAssembly) in headless Chromium.
One server, a real agent each: enrolled, profiled, audited. Then a subnet is extracted for each, at a budget that lies
the same share of the way from its smallest subnet's latency to its largest's. At last the three networks are measured
on every device, on each in the same rounds.

Weights are random, so multiply-accumulates stand in for accuracy: search gives the most of them that fit. As the three
networks then differ in size, what is compared on a device is how many MACs they do in a millisecond.

Takes about 8 minutes on two cores. Needs the extra [test], Chromium, and npm for ONNX Runtime Web. With --workspace a
later run keeps the profiles; the rest is measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from playwright.sync_api import sync_playwright

from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.extract import extract
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.subject import Subject, random_subject
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.fleet.agents import AgentProcess
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.profiling import network_item, profile
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.fleet.tokens import admin_token
from ofa_deploy.fleet.web_assets import install, missing
from ofa_deploy.latency_models import load_model
from ofa_deploy.search import Constraints
from ofa_deploy.space import Arch, PopulationCodec, SearchSpace, load_space, network_macs
from ofa_deploy.store import Workspace

TARGETS = (
    TargetProfile(name="onnxruntime-1", description="ONNX Runtime, one thread", runtime="onnxruntime"),
    TargetProfile(name="openvino-2", description="two threads", runtime="openvino", provider="CPU", threads=2),
    TargetProfile(name="chromium-wasm", description="Chromium, one thread", runtime="ort-web-wasm", provider="wasm"),
)
NETWORKS = 20  # whole ones in a profile, and in an audit
THOROUGH = Protocol(se=0.02, cap_s=60)  # for a profile, an audit, and the table
SHORT = Protocol(se=0.02, cap_s=12)  # for the finalists of an extraction, which are measured several times
ONLINE_S = 60


@dataclass(frozen=True)
class Study:
    """What was found on one device.

    Attributes:
        ends_ms: predicted latencies of the space's smallest and largest subnets.
        audit: of ``fleet.auditing.audit``.
        arch: the subnet that was extracted.
        measured_ms: its latency, the slower of two sessions, as the extraction measured it.
    """

    target: TargetProfile
    ends_ms: tuple[float, float]
    budget_ms: float
    audit: dict[str, Any]
    arch: Arch
    measured_ms: float


@contextmanager
def three_devices(workspace: Workspace) -> Iterator[Fleet]:
    """A server in this process, at which the three are online."""
    if missing(workspace.root):
        install(workspace.root)
    token = admin_token(workspace.root)
    server = LocalServer(create_app(workspace.store, token, workspace.root / "blobs", workspace=workspace.root))
    with ExitStack() as stack:
        stack.callback(server.close)
        fleet = stack.enter_context(Fleet.open(workspace, server.url))
        for target in TARGETS:
            code = fleet.client.register(target.name, target.model_dump(mode="json")).code
            if target.browser:
                stack.enter_context(open_page(f"{server.url}/agent#{code}"))
            else:
                stack.callback(AgentProcess(server.url, code, target.name, "", workspace).stop)
            wait_until_online(fleet, target.name)
        yield fleet


@contextmanager
def open_page(link: str) -> Iterator[None]:
    """Headless Chromium with a page."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own sandbox refuses to run as root
    with sync_playwright() as driver, driver.chromium.launch(executable_path=found, args=arguments) as browser:
        browser.new_page().goto(link)
        yield


def wait_until_online(fleet: Fleet, name: str) -> None:
    """Until an agent has asked for work."""
    end = time.monotonic() + ONLINE_S
    while not fleet.client.device(name).device.online:
        if time.monotonic() > end:
            raise OfaDeployError(f"{name} is not online after {ONLINE_S} s")
        time.sleep(0.2)


def study(fleet: Fleet, workspace: Workspace, target: TargetProfile, subject: Subject, share: float) -> Study:
    """Profile a device, audit it, extract a subnet for it."""
    space, codec = subject.space, PopulationCodec(subject.space)
    say(f"{target.name}: profile")
    profile(fleet, workspace, target, space, NETWORKS, protocol=THOROUGH)
    say(f"{target.name}: audit")
    audited = audit(fleet, workspace, target, space, NETWORKS, protocol=THOROUGH).to_json()
    ends = load_model(workspace, target, space).bind(codec).mean(codec.encode([space.smallest, space.largest]))
    low, high = map(float, ends)
    budget = low + share * (high - low)
    say(f"{target.name}: extract for {budget:.4g} ms, between {low:.4g} and {high:.4g}")
    order = Order(subject, target, Constraints(max_ms=budget), protocol=SHORT)
    found = extract(fleet, workspace, order)
    return Study(target, (low, high), budget, audited, found.chosen.point.arch, found.chosen.measured_ms)


def latencies(fleet: Fleet, target: TargetProfile, space: SearchSpace, archs: Sequence[Arch]) -> list[float]:
    """What subnets take on a device, in ms, measured in the same rounds."""
    say(f"{target.name}: all {len(archs)} networks")
    items = [network_item(space.network(arch), arch, target) for arch in archs]
    return [record.p50 for record in fleet.measure(target, items, THOROUGH)]


def shape(space: SearchSpace, arch: Arch) -> dict[str, float]:
    """A subnet in four numbers: its MACs in millions, its blocks, and their mean kernel and expansion."""
    slots = iter(zip(arch.kernels, arch.expands, strict=True))
    stages = [[next(slots) for _ in range(max(stage.depths))] for stage in space.stages]
    used = [slot for slots, depth in zip(stages, arch.depths, strict=True) for slot in slots[:depth]]
    kernels, expands = zip(*used, strict=True)
    macs = network_macs(space.network(arch)) / 1e6
    return {"mmacs": macs, "blocks": len(used), "kernel": mean(kernels), "expand": mean(expands)}


def benchmark(workspace: Workspace, space: SearchSpace, share: float) -> dict[str, Any]:
    """Everything, as JSON: ``devices``, ``networks`` and the table ``ms[device][network]``."""
    subject = random_subject(space)
    with three_devices(workspace) as fleet:
        studies = [study(fleet, workspace, target, subject, share) for target in TARGETS]
        archs = [found.arch for found in studies]
        table = {target.name: latencies(fleet, target, space, archs) for target in TARGETS}
    return {
        "space": space.name,
        "resolutions": space.resolutions,
        "budget": share,
        "devices": {found.target.name: facts(found) for found in studies},
        "networks": [{"arch": arch.to_json(), **shape(space, arch)} for arch in archs],
        "ms": table,
    }


def facts(found: Study) -> dict[str, Any]:
    """What the report says of a device."""
    kept = ("spearman", "mape", "bias", "within_10", "coverage_95", "repeatability", "status", "condition")
    return {
        "ends_ms": found.ends_ms,
        "budget_ms": found.budget_ms,
        "measured_ms": found.measured_ms,
        "audit": {key: found.audit[key] for key in kept},
    }


def print_tables(answer: dict[str, Any]) -> None:
    """The devices, their networks, and every network on every device."""
    networks = answer["networks"]
    print(f"{'device':14}  smallest   largest    budget   audit: Spearman  mean error  repeatability")
    for name, device in answer["devices"].items():
        figures = "".join(f"{value:7.2f} ms" for value in (*device["ends_ms"], device["budget_ms"]))
        audited = device["audit"]
        errors = f"{100 * audited['mape']:10.1f} % {100 * audited['repeatability']:12.1f} %"
        print(f"{name:14}{figures}   {audited['spearman']:15.3f} {errors}")
    print("\nthe network for", *(f"{name:>24}" for name in answer["devices"]))
    for key, text in (("mmacs", "million MACs"), ("blocks", "blocks"), ("kernel", "kernel"), ("expand", "expansion")):
        print(f"{text:15}", *(f"{network[key]:24.4g}" for network in networks))
    print("\nmeasured on, in ms, and its MACs per ms as a share of the most that one of the three reaches there")
    for name, row in answer["ms"].items():
        speeds = [network["mmacs"] / ms for network, ms in zip(networks, row, strict=True)]
        cells = (f"{ms:12.3f} ms {100 * speed / max(speeds):6.1f} %" for ms, speed in zip(row, speeds, strict=True))
        print(f"{name:15}", *(f"{cell:>24}" for cell in cells))


def say(text: str) -> None:
    """Progress, with the time."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="[default: a fresh one, removed afterwards]")
    parser.add_argument("--space", default="ofa_mbv3_w1.0")
    parser.add_argument("--resolution", type=int, action="append", help="repeatable  [default: 160]")
    parser.add_argument("--budget", type=float, default=0.35, help="share of the way from smallest to largest  [0.35]")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    space = load_space(asked.space).with_resolutions(tuple(asked.resolution or [160]))
    with tempfile.TemporaryDirectory() as folder, Workspace.open(asked.workspace or Path(folder)) as workspace:
        answer = benchmark(workspace, space, asked.budget)
    if asked.json:
        print(json.dumps(answer))
    else:
        print_tables(answer)


if __name__ == "__main__":
    main()
