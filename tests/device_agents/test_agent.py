import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from device_agents import agent as agent_module
from device_agents import files
from device_agents.agent import Agent
from device_agents.http import Refused, Server
from device_agents.state import State

LONG = {"rounds_min": 1000, "rounds_max": 1000, "min_s": 30, "timings": 2, "burst_ms": 0.05, "warmup_ms": 0}


@pytest.fixture
def state(tmp_path):
    opened = State(str(tmp_path / "state"))
    yield opened
    opened.close()


@pytest.fixture
def agent(state, fleet, faulty_command, monkeypatch):
    """An agent that ends when the server has no work."""
    monkeypatch.setattr(agent_module, "BACKOFF_S", (0.01, 0.02))
    fleet.tokens["d.secret"] = "d"
    made = Agent(state, once=True, command=faulty_command)
    made.fleet_server = Server(fleet.url, "d.secret")
    return made


@pytest.fixture
def agent_process(tmp_path, fleet, faulty_command):
    """``agent_process()``: a real agent with the faulty runtime; its state is in ``tmp_path / "state"``."""
    fleet.tokens["d.secret"] = "d"
    code = """
        import sys
        from device_agents import agent
        from device_agents.http import Server
        from device_agents.state import State
        agent.BACKOFF_S = (0.05, 0.1)
        made = agent.Agent(State(sys.argv[1]), command=sys.argv[3:])
        made.install_signals()
        made.loop(Server(sys.argv[2], "d.secret"))
    """
    started = []

    def start(**options):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "state"), fleet.url, *faulty_command]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def test_work_is_claimed_measured_and_delivered(agent, fleet, state, work):
    fleet.waiting += [work("good"), work("raise", "good", run="r2")]
    agent.loop(agent.fleet_server)
    assert sorted(fleet.results) == ["r1", "r2"]
    assert fleet.results["r2"]["items"][0]["error"]["reason"] == "failed"
    claim = fleet.asked[0][1]
    assert claim["facts"]["python"]
    assert (claim["queue"], claim["run"]) == ("", None)
    assert state.run is None
    assert state.spool.runs() == []


@pytest.mark.parametrize("commands", [True, False])
def test_only_a_commands_agent_starts_the_next_worker_ahead(agent, fleet, work, commands, monkeypatch):
    prepared = []
    monkeypatch.setattr(agent.workers, "prepare", prepared.append)
    agent.parent = os.getppid() if commands else None
    fleet.waiting += [work("good"), work("good", run="r2")]
    agent.loop(agent.fleet_server)
    assert sorted(fleet.results) == ["r1", "r2"]
    assert prepared == [work("good")["runtime"]["runtime"]] * 2 * commands


def test_a_server_that_is_away_is_asked_again_and_gets_the_result_once(agent, fleet, work, monkeypatch):
    fleet.waiting.append(work("good"))
    outage = []

    def answer(path, body, token, ask=fleet.answer):
        if path.endswith("/result") and len(outage) < 3:
            outage.append(agent.state.spool.runs())
            return 503, {"detail": "away"}
        return ask(path, body, token)

    monkeypatch.setattr(fleet, "answer", answer)
    agent.loop(agent.fleet_server)
    assert outage == [["r1"]] * 3, "the result is on disk all the while"
    assert list(fleet.results) == ["r1"]


def test_a_result_whose_answer_was_lost_is_sent_again(agent, fleet, work):
    fleet.waiting.append(work("good"))
    agent.state.spool.keep("r0", {"x": 1})
    fleet.running["r0"] = {}
    fleet.lose_answers = 1
    agent.loop(agent.fleet_server)
    assert fleet.count("/r0/result") == 2
    assert fleet.results["r0"] == {"x": 1}


@pytest.mark.parametrize(("status", "failures"), [(409, []), (404, []), (422, ["malformed"])])
def test_a_result_that_is_refused_is_dropped(agent, fleet, work, status, failures):
    fleet.waiting.append(work("good"))
    fleet.refuse_results = status
    agent.loop(agent.fleet_server)
    assert agent.state.spool.runs() == []
    assert [reason for _, reason, _ in fleet.failures] == failures


def test_a_chunk_that_cannot_be_measured_is_handed_back_with_the_reason(agent, fleet, work):
    fleet.waiting += [work("good", provider="refused"), {"run": "r2", "lease_s": 5}, work("good", run="r3")]
    agent.loop(agent.fleet_server)
    assert [failure[:2] for failure in fleet.failures] == [("r1", "unsupported-op"), ("r2", "failed")]
    assert list(fleet.results) == ["r3"]


def test_a_run_that_is_not_wanted_any_more_is_dropped(agent, fleet, work, monkeypatch):
    fleet.waiting += [work("good", settings=LONG, lease_s=0.2), work("good", run="r2")]
    monkeypatch.setattr(fleet, "_progress", lambda run, body: (409, {"detail": "cancelled"}))
    agent.loop(agent.fleet_server)
    assert list(fleet.results) == ["r2"]
    assert fleet.failures == []


def test_the_lease_is_kept_while_a_model_hangs(agent, fleet, work, monkeypatch):
    from device_agents import supervisor

    monkeypatch.setattr(supervisor, "STALL_SHARE", 0.01)
    fleet.waiting.append(work("hang", lease_s=0.2))
    agent.loop(agent.fleet_server)
    assert fleet.count("/progress") >= 3
    assert fleet.results["r1"]["items"][0]["error"]["reason"] == "timeout"


def test_a_token_that_is_revoked_ends_the_agent_and_keeps_its_results(agent, fleet):
    agent.state.spool.keep("r0", {"x": 1})
    fleet.revoked = True
    with pytest.raises(Refused, match="401"):
        agent.loop(agent.fleet_server)
    assert agent.state.spool.runs() == ["r0"]


def test_a_full_disk_costs_nothing_but_is_said(agent, fleet, work, monkeypatch, capsys):
    def full(path, data, durable=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    fleet.waiting += [work("fetch", "good"), work("good", run="r2")]
    agent.loop(agent.fleet_server)
    assert sorted(fleet.results) == ["r1", "r2"]
    assert "No space left on device; the result is kept in memory" in capsys.readouterr().err


def test_an_agent_whose_system_writes_nothing_larger_delivers_all_the_same(agent_process, fleet, work, wait_for):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    fleet.waiting += [work(*["good"] * 10), work("good", run="r2")]
    process = agent_process(preexec_fn=limit)
    wait_for(lambda: len(fleet.results) == 2)
    process.terminate()
    assert "the result is kept in memory" in process.stderr.read()
    assert process.wait(10) == 0


def test_clocks_that_jump_change_nothing(agent, fleet, work, monkeypatch):
    jumps = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr(time, "time", lambda: next(jumps) * (-1) ** next(jumps))
    agent._sleep(0.05)
    fleet.waiting.append(work("good"))
    agent.loop(agent.fleet_server)
    assert list(fleet.results) == ["r1"]


def test_an_agent_whose_parent_is_gone_ends(agent, fleet):
    agent.parent = os.getppid() + 1
    agent.loop(agent.fleet_server)
    assert fleet.asked == []


def test_a_name_of_a_run_cannot_lead_out_of_the_folder(agent, fleet, work):
    fleet.waiting += [work("good", run="../../x"), work("good")]
    agent.loop(agent.fleet_server)
    assert list(fleet.results) == ["r1"]


def test_a_killed_agent_resumes_its_run(agent_process, fleet, work, wait_for, tmp_path):
    fleet.waiting.append(work("good", settings=LONG, lease_s=0.5))
    first = agent_process()
    wait_for(lambda: fleet.count("/r1/progress"))
    first.kill()
    assert json.loads((tmp_path / "state" / "run.json").read_text()) == {"run": "r1"}
    fleet.running["r1"] = work("good")
    agent_process()
    wait_for(lambda: "r1" in fleet.results)
    assert "r1" in [body["run"] for path, body in fleet.asked if path == "/api/claim"]


def test_a_killed_agent_delivers_what_it_has_measured_and_does_not_measure_it_again(
    agent_process, fleet, work, wait_for, tmp_path
):
    fleet.waiting.append(work("good"))
    spool = tmp_path / "state" / "spool"
    first = agent_process()
    wait_for(lambda: "r1" in fleet.running)
    fleet.away = True
    wait_for(lambda: list(spool.glob("*.json")))
    first.kill()
    first.wait()
    (kept,) = spool.glob("*.json")
    measured = json.loads(kept.read_text())
    fleet.asked.clear()
    fleet.away = False
    agent_process()
    wait_for(lambda: fleet.count("/api/claim"))
    assert fleet.results == {"r1": measured}
    assert [path for path, _ in fleet.asked][:2] == ["/api/runs/r1/result", "/api/claim"]
    assert list(spool.iterdir()) == []


def test_an_agent_that_is_stopped_hands_its_run_back_and_leaves_no_process(agent_process, fleet, work, wait_for):
    fleet.waiting.append(work("good", settings=LONG, lease_s=0.5))
    process = agent_process()
    wait_for(lambda: fleet.count("/r1/progress"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert [failure[:2] for failure in fleet.failures] == [("r1", "worker-shutdown")]
    wait_for(lambda: not any(map(running, workers)))


def test_the_worker_of_a_killed_agent_ends(agent_process, fleet, work, wait_for):
    fleet.waiting.append(work("good", settings=LONG, lease_s=0.5))
    process = agent_process()
    wait_for(lambda: fleet.count("/r1/progress"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list a process's children")
    workers = children.read_text().split()
    process.kill()
    assert workers
    wait_for(lambda: not any(running(pid) for pid in workers))


def running(pid):
    """Whether a process lives; a zombie, which nobody waits for in a container, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
