"""Processes that make a world, as ``torchrun`` would start them, but from a server that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

from torch.distributed import TCPStore

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["torch.distributed", "ofa_deploy.cli.training", "ofa_deploy.deploy.subject", "sklearn.datasets"]
)


def start(size, target, *arguments, folder):
    """``target(*arguments)`` in ``size`` processes; process r prints to ``folder/r.out`` and ``folder/r.err``."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(exist_ok=True)
    arguments = (size, store.port, folder, target, arguments)
    started = [_context.Process(target=_enter, args=(rank, *arguments)) for rank in range(size)]
    for process in started:
        process.start()
        process.store = store  # lives in torchrun's agent
    return started


def finish(processes, seconds=60):
    """Exit codes; a process that a signal ended has the signal's negative number."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return codes


def run(size, target, *arguments, folder):
    """Run to the end; every process must succeed."""
    codes = finish(start(size, target, *arguments, folder=folder))
    assert codes == [0] * size, [(folder / f"{rank}.err").read_text() for rank in range(size)]


def command(*arguments):
    """``ofa-deploy`` with arguments, in one of the processes."""
    from ofa_deploy.cli import main

    sys.argv = ["ofa-deploy", *arguments]
    main()


def _enter(rank: int, size: int, port: int, folder: Path, target, arguments) -> None:
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": size}
    local = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ.update({name: str(value) for name, value in {**where, **local}.items()} if size > 1 else {})
    target(*arguments)
