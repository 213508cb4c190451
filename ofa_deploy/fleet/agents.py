"""The agent process on this machine, and the server thread in this process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from ofa_deploy.errors import DeviceUnavailable, OfaDeployError
from ofa_deploy.fleet.signs import SUFFIX, Sign, abandoned, locked
from ofa_deploy.store import Workspace

STOP_S = 5.0
AGENTS, LOG = "agents", ".log"
LOGS_KEPT = 20


class AgentProcess:
    """An agent that measures this machine, or simulates a device on it; ends with this process at the latest.

    Args:
        server: URL.
        code: with which it enrols as ``device``; in the environment, where other users do not see it.
        queue: from which it takes work.
        workspace: where the agent has a folder for as long as it lives, and a log that outlives it.
    """

    def __init__(self, server: str, code: str, device: str, queue: str, workspace: Workspace) -> None:
        _remove_dead(workspace.root / AGENTS)
        state = workspace.root / AGENTS / uuid4().hex
        self.device, self.log = device, state.with_suffix(LOG)
        self._sign = Sign(state)  # until the agent has locked its folder, this says that somebody needs it
        command = [sys.executable, "-m", "device_agents", "--server", server, "--state", str(state), "--queue", queue]
        with self.log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                env=_environment(code),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # so that it can raise its own priority, and Ctrl-C is ours to pass on
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ``DeviceUnavailable`` with the agent's last words if it has died."""
        if self.alive:
            return
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        words = lines[-1] if lines else "it printed nothing"
        raise DeviceUnavailable(
            f"the agent of {self.device!r} ended with code {self._process.returncode}: {words} (log: {self.log})"
        )

    def stop(self) -> None:
        """Ask it to end, and make it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sign.close()


def _remove_dead(agents: Path) -> None:
    """Delete the folders of agents that were killed, with the commands that started them, and all but the last logs."""
    for state in abandoned(agents):
        _remove(state)
    for lock in agents.glob("*/lock"):
        if not lock.parent.with_suffix(SUFFIX).exists():  # its command ended in order, or took no note of it
            _remove(lock.parent)
    logs = sorted(agents.glob(f"*{LOG}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for log in logs[LOGS_KEPT:]:
        if not log.with_suffix(SUFFIX).exists():
            log.unlink(missing_ok=True)


def _remove(state: Path) -> None:
    """Delete an agent's folder, unless it lives: it ends a moment after its command."""
    with locked(state / "lock") as ours:
        if ours:
            shutil.rmtree(state, ignore_errors=True)


def _environment(code: str) -> dict[str, str]:
    """The agent's environment: the code where nobody sees it, and the way to ``device_agents``."""
    spec = importlib.util.find_spec("device_agents")
    if spec is None or spec.origin is None:
        raise OfaDeployError("the package device_agents is not installed beside ofa_deploy; install ofa-deploy again")
    paths = [str(Path(spec.origin).parent.parent), os.environ.get("PYTHONPATH", "")]
    local = "127.0.0.1,localhost"
    proxies = {name: ",".join(filter(None, [os.environ.get(name), local])) for name in ("no_proxy", "NO_PROXY")}
    return {**os.environ, **proxies, "OFA_CODE": code, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
