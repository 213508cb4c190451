"""Agents by the hundred in one process: they ask, resume, spool and deliver as ``device_agents`` does, over asyncio.

What they measure is a simulated device, with the agent's own code. Some are killed while they work, some lose an answer
on the way, some send a result twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from device_agents.chunk import measure_chunk

WAIT_S = 20  # how long the server may keep a claim open, as real agents let it
BEAT_S = 1.0
BACKOFF_S = (0.5, 60.0)
WORK_S = (0.05, 0.6)  # how long a chunk seems to take
LOST, TWICE = 0.1, 0.1  # of the answers to results; of the results


class Away(Exception):
    """The server did not answer, or cannot now."""


@dataclass
class Disk:
    """What an agent finds again after it was killed."""

    token: str
    run: str | None = None
    result: tuple[str, dict[str, Any]] | None = None


@dataclass
class Tally:
    """What all agents of the process saw: statuses by their number, claims as (item, attempt, asked, got)."""

    statuses: Counter[str] = field(default_factory=Counter)
    claims: list[tuple[str, int, float, float]] = field(default_factory=list)
    killed: int = 0
    replays: int = 0


class Agent:
    """One asynchronous agent."""

    def __init__(self, url: str, disk: Disk, tally: Tally) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._disk, self._tally = disk, tally

    async def live(self) -> None:
        """Deliver, claim, measure; for ever."""
        while True:
            if self._disk.result:
                await self._persist(self._deliver)
            work = await self._persist(self._claim)
            if work:
                await self._measure(work)

    async def _persist(self, request: Callable[[], Awaitable[Any]]) -> Any:
        pause, longest = BACKOFF_S
        while True:
            try:
                return await request()
            except Away:
                self._tally.statuses["away"] += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, longest)

    async def _claim(self) -> dict[str, Any] | None:
        asked, again = time.time(), self._disk.run
        body = {"facts": {"simulated": True}, "wait_s": WAIT_S, "run": again}
        status, work = await self._call("/api/claim", body, WAIT_S + 10)
        self._disk.run = work["run"] if status == 200 else None
        if status == 200 and work["run"] != again:
            self._tally.claims.append((work["items"][0]["item"], work["attempt"], asked, time.time()))
        return work if status == 200 else None

    async def _measure(self, work: dict[str, Any]) -> None:
        end = time.monotonic() + random.uniform(*WORK_S)
        while time.monotonic() < end:
            with contextlib.suppress(Away):
                status, _ = await self._call(f"/api/runs/{work['run']}/progress", {"phase": "rounds"})
                if status != 204:
                    self._disk.run = None
                    return
            await asyncio.sleep(max(min(BEAT_S, end - time.monotonic()), 0))
        result = measure_chunk(work, lambda sha256: b"", lambda progress: None)
        self._disk.result, self._disk.run = (work["run"], result), None

    async def _deliver(self) -> None:
        assert self._disk.result is not None
        run, result = self._disk.result
        path = f"/api/runs/{run}/result"
        if random.random() < LOST:
            self._tally.replays += 1
            with contextlib.suppress(Away):
                await self._call(path, result, timeout=random.uniform(0.001, 0.2))
        if random.random() < TWICE:
            self._tally.replays += 1
            await self._call(path, result)
        await self._call(path, result)
        self._disk.result = None

    async def _call(self, path: str, body: dict[str, Any], timeout: float = 30.0) -> tuple[int, Any]:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._disk.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        try:
            async with asyncio.timeout(timeout):
                status, answer = await self._exchange(head.encode() + data)
        except OSError as error:  # TimeoutError is one
            raise Away from error
        self._tally.statuses[str(status)] += 1
        if status >= 500 or status in (408, 429):
            raise Away
        return status, json.loads(answer) if answer else None

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            writer.write(request)
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            if writer is not None:
                writer.close()
        sizes = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not head or len(answer) < sum(sizes):
            raise Away
        return int(head.split(b" ", 2)[1]), answer


async def _killed(agent: Callable[[Disk], Agent], disk: Disk, after_s: float, tally: Tally) -> None:
    """An agent that is killed once, at work, and started again; every second time it has lost what it knew."""
    task = asyncio.create_task(agent(disk).live())
    await asyncio.sleep(after_s)
    while disk.run is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(random.uniform(0, WORK_S[0]))
    task.cancel()
    tally.killed += 1
    await agent(disk if tally.killed % 2 else Disk(disk.token)).live()


async def _live(url: str, tokens: list[str], kills: int, seconds: float, stop: Event, tally: Tally) -> None:
    def agent(disk: Disk) -> Agent:
        return Agent(url, disk, tally)

    lives = [_killed(agent, Disk(token), random.uniform(0, seconds), tally) for token in tokens[:kills]]
    tasks = [asyncio.create_task(life) for life in [*lives, *(agent(Disk(token)).live() for token in tokens[kills:])]]
    while not stop.is_set():
        broken = [task for task in tasks if task.done()]
        if broken:
            broken[0].result()
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()


def run_agents(url: str, tokens: list[str], kills: int, seconds: float, stop: Event, answer: Path) -> None:
    """Let agents live in this process until told to stop, the first ``kills`` of them with a kill within ``seconds``;
    write what they saw to a file."""
    tally = Tally()
    asyncio.run(_live(url, tokens, kills, seconds, stop, tally))
    answer.write_text(json.dumps(vars(tally)))
