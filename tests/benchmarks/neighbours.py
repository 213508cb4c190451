"""Busy loops beside a benchmark: as many as are asked for, or some that come and go."""

from __future__ import annotations

import contextlib
import ctypes
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

CAP_SYS_NICE, PR_CAPBSET_DROP = 23, 24  # linux/capability.h, linux/prctl.h


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many busy loops beside what is done within."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def coming_and_going(most: int, seed: int, shortest_s: float = 5.0, longest_s: float = 30.0) -> Iterator[list[int]]:
    """From 0 to ``most`` busy loops, another number every few seconds; yields the numbers that there were so far."""
    rng, over, counts = random.Random(seed), threading.Event(), list[int]()

    def run() -> None:
        while not over.is_set():
            counts.append(rng.randint(0, most))
            with busy(counts[-1]):
                over.wait(rng.uniform(shortest_s, longest_s))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def ordinary() -> None:
    """Give up the right to raise priorities, in the processes that this one starts."""
    if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0):
        raise OSError("only root can give up a capability; an ordinary user does not have it")
