"""Many agents at one server, with agents and the server killed all the time: is anything lost, and how fast is it?

    python -m tests.benchmarks.fleet_load [--agents 200] [--jobs 5] [--items 20] [--seconds 60]
                                          [--postgres [URL]] [--json]

Agents work on simulated devices: most as tasks of a few processes, one in ten as a process of its own. One in five is
killed at work and started again, with and without what it knew; so is every agent with a process (kill -9), and the
server twice. Afterwards the database says whether every job is done and every item has exactly one measurement; the
exit code is 1 where not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from ofa_deploy.blocks import OpSpec
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.fleet import Client, MeasureItem, Protocol, resolve_target
from ofa_deploy.fleet.profiling import block_item
from ofa_deploy.fleet.schemas import JobRequest, Runtime
from ofa_deploy.fleet.tokens import admin_token
from ofa_deploy.store.database import open_engine
from tests import postgres
from tests.benchmarks.fleet_agents import run_agents

TARGET = "jetson_nano"
QUICK = Protocol(rounds_min=3, rounds_max=3, min_s=0, timings=2, warmup_ms=0, warmup_calls=1)
LEASE_S = 5.0
PROCESSES, SUBMITTERS = 2, 4
REAL_SHARE, KILL_SHARE, SERVER_KILLS = 10, 5, 2  # one agent in so many; how often
PATIENCE_S = 180.0  # after the last job was sent


class ServerProcess:
    """``ofa-deploy serve``, to be killed and started again on its port."""

    def __init__(self, workspace: Path, database: str | None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url, self.rss_mb, self.answered = f"http://127.0.0.1:{self.port}", 0.0, Counter[str]()
        self._workspace, self._database = workspace, database
        self._log = workspace / "serve.log"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--lease", str(LEASE_S), *self._on()]
        command = [sys.executable, "-m", "ofa_deploy", "--workspace", str(self._workspace), "serve", *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit(f"the server did not start: {self._log}")
            time.sleep(0.05)

    def _on(self) -> list[str]:
        return ["--database", self._database] if self._database else []

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """Kill it with -9."""
        self._process.kill()
        self._process.wait()

    def account(self) -> None:
        """Note what it answered since it started, and its memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        self.rss_mb = max(self.rss_mb, int(status.split("VmHWM:")[1].split()[0]) / 1024)
        headers = {"Authorization": f"Bearer {admin_token(self._workspace)}"}
        metrics = requests.get(f"{self.url}/metrics", headers=headers, timeout=30).text
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples if family.name == "ofa_http_requests" else ():
                self.answered[sample.labels["status"]] += int(sample.value)


class RealAgents:
    """Agents that are processes, each with a folder of its own."""

    def __init__(self, url: str, folder: Path, codes: dict[str, str]) -> None:
        self._url, self._folder, self._codes = url, folder, codes
        self._processes = {name: self._start(name) for name in codes}
        self.killed = 0

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "device_agents", "--server", self._url, "--code", self._codes[name]]
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*command, "--state", str(self._folder / name)], stderr=log, start_new_session=True)

    def kill_one(self, name: str) -> None:
        """Kill one and start it again; it finds its folder as it was."""
        self._processes[name].kill()
        self._processes[name].wait()
        self.killed += 1
        self._processes[name] = self._start(name)

    def end(self) -> None:
        """Kill all."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def run_load(agents: int, jobs: int, items: int, seconds: float, folder: Path, database: str | None) -> dict[str, Any]:
    """Put a server under load in a folder, and say what came of it; ``lost`` is empty where nothing was."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ServerProcess(folder, database)
    try:
        return _load(server, agents, jobs, items, seconds, folder, database)
    finally:
        server.kill()


def _load(
    server: ServerProcess, agents: int, jobs: int, items: int, seconds: float, folder: Path, database: str | None
) -> dict[str, Any]:
    names = [f"agent-{i}" for i in range(agents)]
    admin = Client(server.url, admin_token(folder))
    profile = resolve_target(TARGET).model_dump(mode="json")
    codes = {name: admin.register(name, profile).code for name in names}
    real = names[: agents // REAL_SHARE]
    processes = RealAgents(server.url, folder, {name: codes[name] for name in real})
    tokens = [enrol(server.url, codes[name]) for name in names[len(real) :]]
    try:
        wait_until(lambda: all(device.seen_at for device in admin.devices()), 60)
        start = time.monotonic()
        with many_agents(server.url, tokens, agents // KILL_SHARE, seconds, folder) as tallies:
            sent = send_jobs(server, names, jobs, items, seconds, folder, chaos(server, processes, real, seconds))
            engine = open_engine(database or f"sqlite:///{folder / 'ofa.db'}")
            wait_until(lambda: not open_jobs(engine, sent), PATIENCE_S, must=False)
            wall_s = time.monotonic() - start
    finally:
        processes.end()
    server.account()
    answer = verify(engine, sent, items) | figures(engine, tallies, wall_s) | {"agents_killed_9": processes.killed}
    engine.dispose()
    answered = sum(server.answered.values())
    answer |= {"requests_per_s": round(answered / wall_s, 1), "answers": dict(sorted(server.answered.items()))}
    broken = sum(count for status, count in server.answered.items() if status >= "500")
    return answer | {"answers_5xx": broken, "server_rss_mb": round(server.rss_mb), "server_killed": SERVER_KILLS}


def enrol(url: str, code: str) -> str:
    """Trade a code for a token, and ask for work once, so that the device was heard of."""
    body = {"code": code, "secret": uuid4().hex * 2, "facts": {"simulated": True}}
    return str(requests.post(f"{url}/api/enroll", json=body, timeout=30).json()["token"])


@contextlib.contextmanager
def many_agents(url: str, tokens: list[str], kills: int, seconds: float, folder: Path) -> Iterator[list[dict]]:
    """Asynchronous agents in a few processes; what they saw is in the list when they have ended."""
    context, tallies = multiprocessing.get_context("spawn"), list[dict]()
    stop, files = context.Event(), [folder / f"agents-{i}.json" for i in range(PROCESSES)]
    running = [
        context.Process(target=run_agents, args=(url, tokens[i::PROCESSES], kills // PROCESSES, seconds, stop, file))
        for i, file in enumerate(files)
    ]
    for process in running:
        process.start()
    try:
        yield tallies
    finally:
        stop.set()
        for process in running:
            process.join(30)
    tallies.extend(json.loads(file.read_text()) for file in files)


def chaos(
    server: ServerProcess, processes: RealAgents, real: list[str], seconds: float
) -> list[tuple[float, Callable[[], None]]]:
    """When is what killed."""

    def restart() -> None:
        server.account()
        server.kill()
        server.start()

    def kill(name: str) -> Callable[[], None]:
        return lambda: processes.kill_one(name)

    planned = [(seconds * (i + 1) / (SERVER_KILLS + 1), restart) for i in range(SERVER_KILLS)]
    return sorted([*planned, *((random.uniform(0, seconds), kill(name)) for name in real)], key=lambda one: one[0])


def send_jobs(
    server: ServerProcess,
    names: list[str],
    jobs: int,
    items: int,
    seconds: float,
    workspace: Path,
    planned: list[tuple[float, Callable[[], None]]],
) -> list[str]:
    """Send every device its jobs, spread over the time, while what is planned happens. Returns the jobs' ids."""
    begin = time.monotonic()
    token, local, blocks = admin_token(workspace), threading.local(), make_blocks(items)

    def sleep_until(moment: float) -> None:
        time.sleep(max(begin + moment - time.monotonic(), 0))

    def send(due: tuple[float, str]) -> str:
        sleep_until(due[0])
        local.client = getattr(local, "client", None) or Client(server.url, token)
        job = make_job(due[1], blocks)
        for left in range(5, -1, -1):
            try:
                return str(local.client.submit(job, {blocks[0].sha256: blocks[0].model}))
            except OfaDeployError:
                if not left:
                    raise
        raise AssertionError

    due = sorted((random.uniform(0, 0.9 * seconds), name) for name in names for _ in range(jobs))
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        sent = pool.map(send, due)
        for moment, happen in planned:
            sleep_until(moment)
            happen()
        return list(sent)


def make_blocks(count: int) -> list[MeasureItem]:
    """Small blocks to simulate."""
    specs = [OpSpec("mbconv", 8, 8, 8, 16 + 8 * i, 8, 3, 1, "relu", skip=True) for i in range(count)]
    return [block_item(spec, resolve_target(TARGET)) for spec in specs]


def make_job(device: str, blocks: list[MeasureItem]) -> JobRequest:
    """A job of blocks that share one model, which a simulation never opens."""
    target, blob = resolve_target(TARGET), blocks[0].sha256
    condition = {"runtime", "provider", "precision", "batch", "threads", "simulation"}
    return JobRequest(
        id=uuid4().hex,
        device=device,
        runtime=Runtime(**target.model_dump(mode="json", include=condition)),
        settings=QUICK,
        sentinels=[blob],
        items=[block.asked.model_copy(update={"blob": blob}) for block in blocks],
    )


def wait_until(condition: Callable[[], bool], seconds: float, must: bool = True) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition() and (time.monotonic() < end or not must):
        if time.monotonic() > end:
            return
        time.sleep(0.1)
    assert condition(), "it did not happen in time"


def ask(engine: Engine, query: str) -> Any:
    """A query's only value."""
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar()


def open_jobs(engine: Engine, sent: list[str]) -> bool:
    """Whether any job is not over."""
    return bool(ask(engine, "SELECT count(*) FROM jobs WHERE state != 'done'")) or not sent


CHECKS = {  # what must not be there: how many there are
    "jobs that are not done": "SELECT count(*) FROM jobs WHERE state != 'done'",
    "items without a result": "SELECT count(*) FROM items WHERE state != 'done'",
    "items without a measurement": """SELECT count(*) FROM items LEFT JOIN measurements ON measurements.item = items.id
        WHERE measurements.id IS NULL""",
    "measurements more than items": "SELECT count(*) - count(DISTINCT item) FROM measurements",
    "measurements of no item": """SELECT count(*) FROM measurements LEFT JOIN items ON measurements.item = items.id
        WHERE items.id IS NULL""",
    "chunks without exactly one finished run": """SELECT count(*) FROM chunks WHERE
        1 != (SELECT count(*) FROM runs WHERE runs.chunk_id = chunks.id AND runs.state = 'done')""",
    "runs that still run": "SELECT count(*) FROM runs WHERE state = 'running'",
    "measurements of a run that did not finish, or of another device": """SELECT count(*) FROM measurements
        JOIN runs ON runs.id = measurements.run JOIN chunks ON chunks.id = runs.chunk_id
        JOIN jobs ON jobs.id = chunks.job_id
        WHERE runs.state != 'done' OR runs.device != jobs.device OR measurements.device != jobs.device""",
}


def verify(engine: Engine, sent: list[str], items: int) -> dict[str, Any]:
    """What was lost, or counted twice."""
    lost = {what: count for what, query in CHECKS.items() if (count := ask(engine, query))}
    measured = ask(engine, "SELECT count(*) FROM measurements")
    if (ask(engine, "SELECT count(*) FROM jobs"), measured) != (len(set(sent)), len(sent) * items):
        lost["measurements that there should be"] = len(sent) * items
    return {"lost": lost, "jobs": len(sent), "items": measured}


def figures(engine: Engine, tallies: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """What it took. A claim's time is from the question, or from the job where that came later, to the answer."""
    with engine.connect() as connection:
        created = {
            job: datetime.fromisoformat(moment).timestamp()
            for job, moment in connection.execute(text("SELECT id, created_at FROM jobs"))
        }
    first = [claim for tally in tallies for claim in tally["claims"] if claim[1] == 1]
    waited = sorted(got - max(asked, created[item.split(".")[0]]) for item, _, asked, got in first)
    parts = statistics.quantiles(waited, n=20)
    return {
        "wall_s": round(wall_s, 1),
        "claims_per_s": round(ask(engine, "SELECT count(*) FROM runs") / wall_s, 1),
        "claim_p50_ms": round(1000 * parts[9], 1),
        "claim_p95_ms": round(1000 * parts[18], 1),
        "runs_again": ask(engine, "SELECT count(*) FROM runs WHERE attempt > 1"),
        "results_sent_again": sum(tally["replays"] for tally in tallies),
        "agents_dropped": sum(tally["killed"] for tally in tallies),
    }


@contextlib.contextmanager
def own_postgres() -> Iterator[str]:
    """A PostgreSQL server of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ofa-pg-"))
    stop = postgres.start(folder)
    try:
        yield f"postgresql://ofa@/postgres?host={folder}"
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the load, and print what came of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name, default in {"agents": 200, "jobs": 5, "items": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=60.0, help="over which jobs are sent")
    parser.add_argument("--postgres", nargs="?", const="own", metavar="URL", help="without a URL: a server of its own")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(own_postgres()) if options.postgres == "own" else options.postgres
        answer = run_load(options.agents, options.jobs, options.items, options.seconds, folder, database)
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in answer.items()))
    return 1 if answer["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
