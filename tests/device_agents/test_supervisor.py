import sys

import pytest

from device_agents import supervisor as module
from device_agents.supervisor import ChunkFailed, Supervisor, Workers, worker_command

MODEL = b"a model"


@pytest.fixture
def measure(tmp_path, faulty_command, monkeypatch):
    """``measure(work)``: what a supervisor makes of a run."""
    monkeypatch.setattr(module, "POLL_S", 0.05)

    def run(work, models=lambda sha256: MODEL, report=lambda progress: None, check=lambda: None, **more):
        return Supervisor(models, report, check, str(tmp_path / "at"), workers=Workers(faulty_command), **more).measure(
            work
        )

    return run


def errors(result):
    return {item["item"]: item["error"]["reason"] for item in result["items"] if "error" in item}


def test_a_chunk_is_measured_in_another_process(measure, work):
    asked, told = [], []

    def models(sha256):
        asked.append(sha256)
        return MODEL

    task = work("good", "fetch", "fetch-2")
    result = measure(task, models, told.append)
    assert [len(item["timings"]) for item in result["items"]] == [3, 3, 3]
    assert len(result["sentinel"]["visits"]) == 3
    assert result["sentinel"]["blob"] == task["sentinels"][0]["blob"]
    assert asked == [task["items"][1]["blob"]] * 2, "a model is fetched only where the runtime wants it"
    assert told[0]["phase"] == "loading"


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("abort", "failed", "SIGABRT"),
        ("later-abort", "failed", "SIGABRT"),
        ("exit", "failed", "code 7"),
        ("later-killed", "out-of-memory", "not enough memory"),
        ("raise", "failed", "no such kernel"),
    ],
)
def test_a_crash_costs_the_item_and_the_rest_is_measured(measure, work, fault, reason, words):
    result = measure(work("good", fault, "good"))
    assert [item["item"] for item in result["items"]] == ["i0", "i1", "i2"]
    assert errors(result) == {"i1": reason}
    assert words in result["items"][1]["error"]["message"]
    assert len(result["items"][2]["timings"]) == 3


def test_an_item_that_hangs_costs_the_item(measure, work, monkeypatch):
    monkeypatch.setattr(module, "STALL_SHARE", 0.02)
    result = measure(work("good", "later-hang"))
    assert errors(result) == {"i1": "timeout"}


def test_an_item_that_fills_the_memory_costs_the_item(measure, work):
    result = measure(work("eat", "good"), memory=300e6)
    assert errors(result) == {"i0": "out-of-memory"}
    assert "MB" in result["items"][0]["error"]["message"]


def test_a_sentinel_that_crashes_is_replaced_by_the_next(measure, work):
    assert errors(measure(work("good", sentinels=("later-abort", "good")))) == {}


def test_what_a_runtime_prints_does_not_garble_the_result(measure, work):
    assert errors(measure(work("print", "good"))) == {}


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"provider": "refused"}, "unsupported-op", "not here"),
        ({"provider": "abort"}, "failed", "SIGABRT"),
        ({"sentinels": ("raise", "raise")}, "unsupported-op", "none of 2 sentinels"),
        ({"run_s": 0.4, "provider": "hang"}, "timeout", "hangs"),
    ],
)
def test_a_chunk_that_cannot_be_measured_says_why(measure, work, options, reason, words):
    with pytest.raises(ChunkFailed, match=words) as error:
        measure(work("good", **options))
    assert error.value.reason == reason


def test_too_many_crashes_end_the_chunk(measure, work):
    with pytest.raises(ChunkFailed, match="6 of its models broke the runtime") as error:
        measure(work(*["exit"] * 10))
    assert error.value.reason == "failed"


def test_the_measurement_ends_when_it_is_not_wanted(measure, work):
    class Enough(Exception):
        pass

    calls = []

    def check():
        calls.append(1)
        if len(calls) > 3:
            raise Enough

    with pytest.raises(Enough):
        measure(work("hang"), check=check)


def test_a_worker_is_started_as_its_agent_was():
    command = worker_command()
    assert command[0] == sys.executable
    assert ("-I" in command) == bool(sys.flags.isolated)


def test_a_worker_that_was_started_ahead_measures_and_a_dead_one_is_replaced(tmp_path, faulty_command, work):
    workers = Workers(faulty_command)
    supervisor = Supervisor(
        lambda sha256: MODEL, lambda progress: None, lambda: None, str(tmp_path / "at"), None, workers
    )
    workers.prepare("onnxruntime")
    ahead = workers._ahead
    assert len(supervisor.measure(work("good"))["items"][0]["timings"]) == 3
    assert ahead.poll() is not None, "it was the one that measured, and has ended"
    workers.prepare("onnxruntime")
    workers._ahead.kill()
    workers._ahead.wait()
    assert len(supervisor.measure(work("good"))["items"][0]["timings"]) == 3
    workers.prepare("a runtime that there is not")
    left = workers._ahead
    workers.close()
    assert left.poll() is not None


def test_a_worker_that_waits_has_imported_its_runtime(monkeypatch):
    monkeypatch.setenv("OFA_TOKEN", "secret")
    watched = (
        "import os, sys; from device_agents import worker\n"
        "class Pipe:\n"
        "    def read(self): sys.exit('onnxruntime' in sys.modules and 'OFA_TOKEN' not in os.environ and 7)\n"
        "worker.Pipe = Pipe; worker.main()"
    )
    for runtime, code in (("onnxruntime", 7), ("os.path", 0), ("simulated", 0)):
        workers = Workers([sys.executable, "-c", watched])
        workers.prepare(runtime)
        assert workers._ahead.wait(60) == code
        workers.close()
