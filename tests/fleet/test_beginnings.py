"""Servers, commands and agents that begin at the same moment in one workspace."""

import fcntl
import os
import threading
import time

import pytest

from ofa_deploy.errors import DeviceUnavailable
from ofa_deploy.fleet import agents
from ofa_deploy.fleet.agents import AgentProcess, _remove_dead
from ofa_deploy.fleet.presence import FILE, announced, running
from ofa_deploy.fleet.signs import Sign


def test_a_command_that_looks_does_not_keep_a_server_from_being_announced(tmp_path):
    (tmp_path / FILE).touch()
    looking = os.open(tmp_path / FILE, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [looking]).start()
    with announced(tmp_path, "http://x") as first:
        assert first
        assert running(tmp_path) == "http://x"
    assert running(tmp_path) is None


def test_many_commands_look_while_servers_begin(tmp_path):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            running(tmp_path)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            with announced(tmp_path, "http://x") as first:
                assert first
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


def test_of_servers_that_begin_at_once_one_is_announced(tmp_path):
    found, ready, go_on = [], threading.Barrier(5), threading.Event()

    def serve(number):
        ready.wait(10)
        with announced(tmp_path, f"http://{number}") as first:
            found.append((number, first))
            go_on.wait(10)

    servers = [threading.Thread(target=serve, args=(number,)) for number in range(5)]
    for server in servers:
        server.start()
    while len(found) < 5:
        time.sleep(0.01)
    (one,) = [number for number, first in found if first]
    assert running(tmp_path) == f"http://{one}"
    go_on.set()
    for server in servers:
        server.join()


def test_a_server_that_is_stopped_in_the_middle_of_looking_delays_another_but_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.presence.LOOKING_S", 0.2)
    (tmp_path / FILE).touch()
    with (tmp_path / FILE).open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with announced(tmp_path, "http://x") as first:
            assert not first


def test_the_folder_of_an_agent_that_is_just_starting_stays(tmp_path):
    starting, killed, older = (tmp_path / name for name in ("starting", "killed", "older"))
    for folder in (starting, killed, older):
        folder.mkdir()
        (folder / "lock").touch()  # made, and not locked yet
    signs = [Sign(starting), Sign(killed)]
    os.close(signs[1]._handle)  # as the system does when the command is killed
    _remove_dead(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"starting", "starting.lock"}
    signs[0].close()
    _remove_dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_agent_that_outlives_its_command_for_a_moment_keeps_its_folder(tmp_path):
    folder = tmp_path / "agent"
    folder.mkdir()
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.close(Sign(folder)._handle)
    for _ in range(2):
        _remove_dead(tmp_path)
        assert folder.exists()
    os.close(handle)
    _remove_dead(tmp_path)
    assert not folder.exists()


def test_every_agent_has_a_log_of_its_own_and_the_last_ones_are_kept(workspace, monkeypatch):
    monkeypatch.setattr(agents, "LOGS_KEPT", 2)
    started = [AgentProcess("no url", f"code-{i}", f"device-{i}", "queue", workspace) for i in range(2)]
    for i, agent in enumerate(started):
        agent._process.wait()
        with pytest.raises(DeviceUnavailable, match=rf"'device-{i}' ended with code 2: .*no url.*{agent.log}"):
            agent.check()
        agent.stop()
    assert started[0].log != started[1].log
    for i in range(5):
        (workspace.root / "agents" / f"{i}.log").touch()
        os.utime(workspace.root / "agents" / f"{i}.log", (i, i))
    _remove_dead(workspace.root / "agents")
    assert set((workspace.root / "agents").iterdir()) == {agent.log for agent in started}
