"""How long signs of life wait while a large model, a large job and a large result arrive at the server.

    python -m tests.benchmarks.fleet_large_bodies [--agents 10] [--blob-mb 512] [--json]

A server in a process of its own; agents in another, each of which beats four times a second; and this process, which
sends one large body after the other. The goal is that 95 % of the beats are answered within 0.2 s. Exit code 1 where
they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from ofa_deploy.fleet import Client, Protocol, resolve_target
from ofa_deploy.fleet.schemas import JobRequest
from ofa_deploy.fleet.tokens import admin_token
from tests.benchmarks.fleet_load import ServerProcess, enrol

BEAT_S = 0.25
QUIET_S = 5.0
GOAL_S = 0.2
MODEL = b"a model"
SHA = hashlib.sha256(MODEL).hexdigest()
RUNTIME = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "batch": 1, "threads": 1}
SETTINGS = Protocol(rounds_min=3).model_dump()
ITEMS, ROUNDS = 600, 350  # of the large result: 1.3 million timings
JOB_ITEMS = 100_000


def job(device: str, items: int) -> dict[str, Any]:
    """A job whose items have about 500 bytes each."""
    spec = {"kind": "mbconv", "h": 28, "w": 28, "cin": 96, "mid": 576, "cout": 96, "kernel": 5, "note": "x" * 260}
    item = {"kind": "op", "ops": ["k"], "specs": [spec], "arch": None, "blob": SHA}
    return {
        "id": uuid4().hex,
        "device": device,
        "runtime": RUNTIME,
        "settings": SETTINGS,
        "sentinels": [SHA],
        "items": [{**item, "key": f"k{i}"} for i in range(items)],
    }


def result(run: dict[str, Any], rounds: int) -> dict[str, Any]:
    """What an agent sends: six timings in every round, of half a microsecond each."""
    draw = random.Random(0).uniform
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bursts = [[draw(4e-4, 6e-4) for _ in range(6)] for _ in range(rounds)]
    return {
        "condition": {**RUNTIME, "runtime_version": "1", "simulated": False},
        "facts": {"cpu": "x"},
        "settings": run["settings"],
        "started_at": now,
        "finished_at": now,
        "stopped": "settled",
        "sentinel": {"blob": SHA, "burst": 1, "visits": [[burst, burst, burst] for burst in bursts]},
        "items": [{"item": i["item"], "burst": 1, "timings": random.sample(bursts, rounds)} for i in run["items"]],
    }


def model_file(size: int) -> bytes:
    """An ONNX file with one weight, as large as asked: what the server checks of it is how it is laid out."""

    def field(number: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 128:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    return field(7, field(5, field(9, bytes(size))))


def beat(url: str, agents: list[tuple[str, str]], stop: Event, file: Path) -> None:
    """Beat for agents, each a token and a run, until told to stop; writes when each beat began and how long it took."""
    beats: list[tuple[float, float, int]] = []

    def one(token: str, run: str) -> None:
        session, turn = requests.Session(), 0
        session.headers["Authorization"] = f"Bearer {token}"
        while not stop.wait(BEAT_S * random.uniform(0.5, 1.5)):
            turn, began = turn + 1, time.time()
            answer = session.post(f"{url}/api/runs/{run}/progress", json={"phase": "rounds", "round": turn}, timeout=60)
            beats.append((began, time.time() - began, answer.status_code))

    threads = [threading.Thread(target=one, args=agent) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.write_text(json.dumps(beats))


def run_benchmark(agents: int, blob_mb: int, folder: Path) -> dict[str, Any]:
    """Beats in every phase: how many, and median, 95 % quantile and maximum of their answers' seconds."""
    server = ServerProcess(folder, None)
    try:
        return _measure(server, agents, blob_mb, folder)
    finally:
        server.kill()


def _measure(server: ServerProcess, agents: int, blob_mb: int, folder: Path) -> dict[str, Any]:
    admin, session = Client(server.url, admin_token(folder)), requests.Session()
    session.headers["Authorization"] = f"Bearer {admin.token}"
    profile = resolve_target("local").model_dump(mode="json")

    def start(name: str, items: int) -> tuple[str, dict[str, Any]]:
        token = enrol(server.url, admin.register(name, profile).code)
        admin.submit(JobRequest.model_validate(job(name, items)), {SHA: MODEL})
        headers = {"Authorization": f"Bearer {token}"}
        return token, requests.post(f"{server.url}/api/claim", json={"facts": {}}, headers=headers, timeout=60).json()

    beating = [(token, run["run"]) for token, run in (start(f"agent-{i}", 1) for i in range(agents))]
    token, run = start("large", ITEMS)
    good, blob = json.dumps(result(run, ROUNDS)).encode(), model_file(blob_mb * 2**20)
    bad = good.replace(b"CPUExecutionProvider", b"SomeOtherProvider", 1)
    large_job = json.dumps(job("large", JOB_ITEMS)).encode()
    name = hashlib.sha256(blob).hexdigest()

    def send(method: str, path: str, body: bytes, as_token: str, status: int) -> None:
        headers = {"Authorization": f"Bearer {as_token}", "Content-Type": "application/json"}
        answer = session.request(method, server.url + path, data=body, headers=headers, timeout=600)
        if answer.status_code != status:
            raise SystemExit(f"{path}: {answer.status_code}, not {status}: {answer.text[:300]}")

    path = f"/api/runs/{run['run']}/result"
    phases: dict[str, Callable[[], None]] = {
        "quiet": lambda: time.sleep(QUIET_S),
        f"model of {len(blob) / 1e6:.0f} MB": lambda: send("PUT", f"/api/blobs/{name}", blob, admin.token, 204),
        f"job of {len(large_job) / 1e6:.0f} MB": lambda: send("POST", "/api/jobs", large_job, admin.token, 201),
        f"result of {len(bad) / 1e6:.0f} MB, refused": lambda: send("POST", path, bad, token, 422),
        f"result of {len(good) / 1e6:.0f} MB": lambda: send("POST", path, good, token, 200),
    }
    context, file = multiprocessing.get_context("spawn"), folder / "beats.json"
    stop = context.Event()
    process = context.Process(target=beat, args=(server.url, beating, stop, file))
    process.start()
    time.sleep(3 * BEAT_S + 1)
    times = []
    try:
        for phase in phases.values():
            began = time.time()
            phase()
            times.append((began, time.time()))
    finally:
        stop.set()
        process.join(120)
    beats = json.loads(file.read_text())
    found = {
        phase: {"seconds": round(end - began, 2), **figures([b for b in beats if began <= b[0] < end])}
        for phase, (began, end) in zip(phases, times, strict=True)
    }
    together = figures([b for b in beats if times[1][0] <= b[0] < times[-1][1]])
    server.account()
    return {"phases": found, "loaded": together, "server_rss_mb": round(server.rss_mb)}


def figures(beats: list[tuple[float, float, int]]) -> dict[str, Any]:
    """Of some beats."""
    took = sorted(seconds for _, seconds, _ in beats)
    if not took:
        return {"beats": 0}
    p95 = statistics.quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
    refused = sum(status != 204 for _, _, status in beats)
    numbers = {"p50_s": statistics.median(took), "p95_s": p95, "max_s": took[-1]}
    return {"beats": len(took), "refused": refused, **{name: round(value, 4) for name, value in numbers.items()}}


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--blob-mb", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run_benchmark(options.agents, options.blob_mb - 1, Path(folder))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for phase, numbers in [*found["phases"].items(), ("all that is large", found["loaded"])]:
            print(f"{phase:32}", "  ".join(f"{name} {value}" for name, value in numbers.items()))
        print(f"server: {found['server_rss_mb']} MB at most")
    sys.exit(found["loaded"]["p95_s"] > GOAL_S)


if __name__ == "__main__":
    main()
