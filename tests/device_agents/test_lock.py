import itertools
import os
import subprocess
import sys

import pytest

from device_agents.lock import host_lock, measuring_lock

HOLDER = """
import sys
from device_agents.lock import measuring_lock
with measuring_lock(sys.argv[1], lambda: None):
    print("held", flush=True)
    sys.stdin.readline()
"""

AGENT = """
from device_agents import chunk
from device_agents.protocol import Settings

class Runtime:
    real, facts, calls = True, {{}}, 0
    condition = {{"power_mode": chunk.power_mode()}}
    def load(self, item, fetch):
        return self
    def run(self):
        self.calls += 1
        if self.calls > 1:  # the first one tries the sentinel, before anything is timed
            with open({log!r}, "a") as file:
                file.write({name!r})

chunk.open_runtime = lambda asked, seed: Runtime()
item = {{"item": "a", "blob": "b", "key": "k"}}
settings = Settings(rounds_min=5, rounds_max=5, min_s=0.3)._asdict()
run = {{"runtime": None, "settings": settings, "items": [item], "sentinels": [item]}}
chunk.measure_chunk(run, None, lambda progress: None, {lock!r})
"""


class TooLong(Exception):
    pass


def test_a_second_measurement_waits_until_the_first_is_gone_even_when_it_was_killed(tmp_path):
    path = str(tmp_path / "lock")
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        waits = []

        def waiting():
            waits.append(1)
            if len(waits) == 2:
                holder.kill()
            if len(waits) > 100:
                raise TooLong

        with measuring_lock(path, waiting):
            assert len(waits) >= 2


def test_a_wait_can_be_given_up_and_leaves_nothing_locked(tmp_path):
    path = str(tmp_path / "lock")

    def waiting():
        raise TooLong

    with measuring_lock(path, waiting), pytest.raises(TooLong), measuring_lock(path, waiting):
        pass
    with measuring_lock(path, waiting):
        pass


def test_no_path_no_lock():
    with measuring_lock(None, None):
        pass


def test_two_agents_on_one_host_never_time_at_once(tmp_path):
    log, lock = str(tmp_path / "log"), str(tmp_path / "lock")
    agents = [subprocess.Popen([sys.executable, "-c", AGENT.format(log=log, lock=lock, name=name)]) for name in "ab"]
    assert [agent.wait(60) for agent in agents] == [0, 0]
    order = "".join(name for name, _ in itertools.groupby((tmp_path / "log").read_text()))
    assert order in ("ab", "ba")


def test_all_agents_of_a_host_have_one_lock_and_a_phone_has_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert str(tmp_path) not in host_lock()
    assert host_lock("R58/../M").endswith("/ofa-agent-R58----M.lock")
    monkeypatch.setattr("device_agents.lock.SHARED", (str(tmp_path / "none"), str(tmp_path)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert host_lock() == str(tmp_path / ".ofa-agent.lock"), "no folder that everybody may write to"
    tmp_path.chmod(0o1777)
    assert host_lock() == str(tmp_path / "ofa-agent.lock")


def test_another_users_lock_file_can_be_locked(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()
    real = os.open

    def as_another(path, flags, mode=0o777):
        if flags & os.O_RDWR:
            raise PermissionError
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", as_another)
    with measuring_lock(str(tmp_path / "lock"), lambda: pytest.fail("it is free")):
        pass
