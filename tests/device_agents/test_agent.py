import os

import pytest

from device_agents import agent as agent_module
from device_agents.agent import Agent
from device_agents.http import Refused, Server, ServerAway

RUN = {"run": "r1", "items": [], "sentinels": [], "runtime": {"runtime": "fake"}, "settings": {}}


class FakeServer:
    """Answers with what a test lays out: a value, or an exception to raise; then ends the agent."""

    def __init__(self, **answers):
        self.answers = {path: list(values) for path, values in answers.items()}
        self.asked = []

    def call(self, method, path, body=None, timeout=0):
        name = path.rsplit("/", 1)[-1]
        self.asked.append((name, body))
        answers = self.answers.get(name)
        if not answers:
            self.agent.stop_asked = name == "claim" or self.agent.stop_asked
            return None
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def run_agent(monkeypatch):
    """``run_agent(server, measure)``: lets an agent work with a measurement of the test's until the server is done."""
    monkeypatch.setattr(agent_module, "BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr(agent_module, "REPORT_S", 0.0)

    def run(server, measure=lambda *_: {"x": 1}):
        monkeypatch.setattr(agent_module, "measure_chunk", measure)
        server.agent = Agent(server, "q")
        server.agent.loop()
        return server.asked

    return run


def names(asked):
    return [name for name, _ in asked]


def test_work_is_claimed_measured_and_sent(run_agent):
    asked = run_agent(FakeServer(claim=[None, RUN]))
    assert names(asked) == ["claim", "claim", "result", "claim"]
    assert asked[2][1] == {"x": 1}
    assert asked[0][1]["queue"] == "q"
    assert asked[0][1]["facts"]["python"]


def test_a_server_that_is_away_is_asked_again_and_the_result_is_not_lost(run_agent):
    away = ServerAway("connection refused")
    asked = run_agent(FakeServer(claim=[away, away, RUN], result=[away, away, {}]))
    assert names(asked) == ["claim"] * 3 + ["result"] * 3 + ["claim"]


def test_measuring_goes_on_while_the_server_is_away(run_agent):
    def measure(run, models, report, lock):
        report({"phase": "rounds"})
        return {"x": 1}

    asked = run_agent(FakeServer(claim=[RUN], progress=[ServerAway("gone")]), measure)
    assert names(asked) == ["claim", "progress", "result", "claim"]


def test_a_run_that_is_not_wanted_any_more_is_dropped(run_agent):
    def measure(run, models, report, lock):
        report({"phase": "rounds"})
        raise AssertionError("the measurement should have ended")

    asked = run_agent(FakeServer(claim=[RUN], progress=[Refused(409, "cancelled")]), measure)
    assert names(asked) == ["claim", "progress", "claim"]
    asked = run_agent(FakeServer(claim=[RUN], result=[Refused(409, "stale")]))
    assert names(asked) == ["claim", "result", "claim"]


def test_an_agent_that_is_stopped_hands_its_run_back(run_agent):
    server = FakeServer(claim=[RUN])

    def measure(run, models, report, lock):
        server.agent._on_signal(15, None)
        report({"phase": "rounds"})
        raise AssertionError("the measurement should have ended")

    asked = run_agent(server, measure)
    assert names(asked) == ["claim", "failure"]
    assert asked[-1][1]["reason"] == "worker-shutdown"


@pytest.mark.parametrize(("error", "reason"), [(ZeroDivisionError("x"), "failed"), (MemoryError(), "out-of-memory")])
def test_a_chunk_that_breaks_costs_the_chunk_not_the_agent(run_agent, error, reason):
    def measure(*_):
        raise error

    asked = run_agent(FakeServer(claim=[RUN]), measure)
    assert names(asked) == ["claim", "failure", "claim"]
    assert asked[1][1]["reason"] == reason


def test_a_refused_result_is_told_as_malformed(run_agent):
    asked = run_agent(FakeServer(claim=[RUN], result=[Refused(422, "no such item")]))
    assert names(asked) == ["claim", "result", "failure", "claim"]
    assert asked[2][1]["reason"] == "malformed"


def test_a_refused_token_ends_the_agent(run_agent):
    with pytest.raises(Refused, match="401"):
        run_agent(FakeServer(claim=[Refused(401, "no")]))


def test_an_agent_whose_parent_is_gone_ends():
    server = FakeServer()
    server.agent = Agent(server, "q", parent=os.getppid() + 1)
    server.agent.loop()
    assert server.asked == []


def test_a_server_is_named_by_a_url():
    with pytest.raises(ValueError, match="https://"):
        Server("ftp://x", "token")


def test_nobody_at_home_is_a_server_that_is_away():
    with pytest.raises(ServerAway):
        Server("http://127.0.0.1:1", "token").call("GET", "/", timeout=5)
