"""A device that goes away while a command waits for it: the command ends, and the job goes on when it is back."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from ofa_deploy.errors import DeviceUnavailable
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer

LEASE_S, LOST_S = 1.0, 4.0
MEASURED = Protocol(rounds_min=3, rounds_max=10_000, min_s=0, timings=2, se=1e-9, cap_s=3.0, warmup_ms=0)


def wait_for(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def fleet(workspace, tmp_path, monkeypatch):
    """A command's fleet at a server elsewhere, which soon misses who is silent."""
    monkeypatch.setenv("OFA_TOKEN", "token")
    monkeypatch.setattr("ofa_deploy.fleet.service.LOST_S", LOST_S - LEASE_S)
    monkeypatch.setattr("ofa_deploy.fleet.service.OWN_LOST_S", 1.0)
    monkeypatch.setattr("ofa_deploy.fleet.service.SEEN_PAUSE_S", 0.2)
    server = LocalServer(create_app(workspace.store, "token", tmp_path / "blobs", LEASE_S))
    with Fleet.open(workspace, server.url) as opened:
        yield opened
    server.close()


@pytest.fixture
def phone(fleet, workspace, target, tmp_path):
    """A registered device: ``phone.start()``, ``phone.kill()`` and its target."""

    class Phone:
        agent, profile = None, target.model_copy(update={"name": "phone", "loopback": False})

        def start(self):
            command = [
                sys.executable,
                "-m",
                "device_agents",
                "--server",
                fleet.client.url,
                "--parent",
                str(os.getpid()),
            ]
            self.agent = subprocess.Popen(
                [*command, "--state", str(tmp_path / "state")], env={**os.environ, "OFA_CODE": code}
            )

        def kill(self):
            self.agent.kill()
            self.agent.wait()

    code, device = fleet.client.register("phone", target.model_dump(mode="json")).code, Phone()
    device.start()
    wait_for(lambda: workspace.store.device("phone").facts)
    yield device
    device.kill()


def refuse_results(monkeypatch, store):
    def finish(*_):
        refused.set()
        raise OperationalError("", {}, Exception("the database is away"))

    refused = threading.Event()
    monkeypatch.setattr(store.runs, "finish", finish)
    return lambda _: refused.is_set()


STAGES = {
    "when it has it": lambda store: store.overview.running(),
    "in the rounds": lambda store: any((run.progress or {}).get("round") for run in store.overview.running()),
}


@pytest.mark.parametrize("stage", ["before it takes the job", "when it has it", "in the rounds", "with the result"])
def test_the_command_ends_and_the_job_goes_on(stage, fleet, workspace, phone, make_items, monkeypatch):
    store, killed = workspace.store, []

    def kill(reached):
        wait_for(reached)
        phone.kill()
        killed.append(time.monotonic())

    with monkeypatch.context() as for_now:
        if stage == "before it takes the job":
            kill(lambda: True)
        else:
            reached = refuse_results(for_now, store) if stage == "with the result" else STAGES[stage]
            threading.Thread(target=kill, args=(lambda: reached(store),)).start()
        with pytest.raises(DeviceUnavailable, match=r"'phone' is not there.*0 of 2 items.*goes on when it is") as error:
            fleet.measure(phone.profile, make_items(2), MEASURED)
        assert time.monotonic() - killed[0] < LEASE_S + LOST_S + 10
    assert error.value.exit_code == 5
    (job,) = store.jobs.of_device("phone")
    assert job.state == "active"
    phone.start()
    wait_for(lambda: store.jobs.status(job.id).state == "done")
    assert [record["key"] for record in store.measurements("phone")] == [item.key for item in make_items(2)]
    status = fleet.client.status(job.id)
    assert (status.done, status.failed, status.lost) == (2, 0, None)


def lose(fleet, phone, items, wait):
    """A command whose device goes away in the rounds; its job is kept."""
    threading.Thread(target=lambda: (wait_for(wait), phone.kill())).start()
    with pytest.raises(DeviceUnavailable):
        fleet.measure(phone.profile, items, MEASURED)


@pytest.mark.parametrize("first", ["same", "fewer", "others"])
def test_a_command_that_is_repeated_when_the_device_is_back_measures_nothing_twice(
    first, fleet, workspace, phone, make_items
):
    items = make_items(5)
    lost = {"same": items[:3], "fewer": items[:2], "others": items[3:]}[first]
    lose(fleet, phone, lost, lambda: STAGES["in the rounds"](workspace.store))
    wait_for(lambda: not workspace.store.overview.running())
    phone.start()
    wait_for(workspace.store.overview.running)
    records = fleet.measure(phone.profile, items[:3], MEASURED)
    assert [record.key for record in records] == [item.key for item in items[:3]]
    jobs = {job.id: job.state for job in workspace.store.jobs.of_device("phone")}
    wanted = {"same": ["done"], "fewer": ["cancelled", "done"], "others": ["done", "done"]}[first]
    assert sorted(jobs.values()) == wanted
    measured = [record["key"] for record in workspace.store.measurements("phone")]
    assert len(measured) == len(set(measured)) == (5 if first == "others" else 3)
    again = fleet.measure(phone.profile, items[:3], MEASURED)
    assert {r.run for r in again}.isdisjoint(r.run for r in records), "a new question is measured anew"


def test_an_own_agent_that_hangs_ends_the_command(fleet, workspace, target, make_items):
    stopped = []

    def stop(progress):
        if progress.get("round") and not stopped:
            os.kill(fleet._agent.pid, signal.SIGSTOP)
            stopped.append(fleet._agent.pid)

    with pytest.raises(DeviceUnavailable, match=r"the agent of 'local' was not heard of since 20.*agent.*log"):
        fleet.measure(target, make_items(2), MEASURED.model_copy(update={"cap_s": 600.0}), stop)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)
    assert [job.state for job in workspace.store.jobs.of_device("local")] == ["cancelled"]


def test_a_device_that_is_busy_with_another_job_is_not_lost(fleet, workspace, phone, make_items):
    waiting = threading.Thread(target=fleet.measure, args=(phone.profile, make_items(2), MEASURED))
    waiting.start()
    with Fleet.open(workspace, fleet.client.url) as second:
        longer = MEASURED.model_copy(update={"cap_s": LEASE_S + LOST_S + 2})
        assert len(second.measure(phone.profile, make_items(2), longer)) == 2
    waiting.join()
    assert len(workspace.store.measurements("phone")) == 4


def test_an_agent_that_never_says_a_word_is_not_waited_for(fleet, target, make_items, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.local.ENROL_S", 0.5)
    monkeypatch.setattr(Fleet, "_told", lambda *_: False)
    with pytest.raises(DeviceUnavailable, match="has not reported; its log"):
        fleet.measure(target, make_items(1))
