import os
import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from device_agents.facts import power_mode
from device_agents.runtimes import RuntimeRefused, open_runtime
from device_agents.runtimes.onnxruntime import CUDA, XNNPACK, check_provider

ASKED = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "batch": 1, "threads": 1}


def load(runtime, item):
    """Open an item as the agent does."""
    return runtime.load({"key": item.key}, lambda: item.model)


@pytest.fixture
def affinity():
    """Opening a runtime pins the process."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_runs_a_model_on_pinned_cores_under_the_stated_condition(affinity, make_items):
    runtime = open_runtime(ASKED, seed=0)
    load(runtime, make_items(1)[0]).run()
    assert len(os.sched_getaffinity(0)) == 1
    known = {**ASKED, "runtime_version": onnxruntime.__version__, "simulated": False, "power_mode": power_mode()}
    assert runtime.condition == known


def test_inputs_are_random_never_zero_and_repeatable(affinity, make_items):
    item = make_items(1)[0]
    first, again, other = (load(open_runtime(ASKED, seed), item)._feeds for seed in (1, 1, 2))
    for name, value in first.items():
        assert value.shape == (1, 8, 8, 8)
        assert (value != 0).all()
        assert (value == again[name]).all()
        assert (value != other[name]).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtime": "nope"}, "unknown runtime 'nope'"),
        ({"provider": "CUDAExecutionProvider"}, "has no CUDAExecutionProvider"),
        ({"threads": 4096}, "4096 threads are asked for"),
    ],
)
def test_what_cannot_be_had_is_refused(affinity, change, words):
    with pytest.raises(RuntimeRefused, match=words) as error:
        open_runtime({**ASKED, **change}, seed=0)
    assert error.value.reason == "unsupported-op"


def test_a_session_that_ends_up_on_another_provider_is_refused(affinity, make_items, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["OtherProvider"])
    with pytest.raises(RuntimeRefused, match="took OtherProvider"):
        load(open_runtime(ASKED, seed=0), make_items(1)[0])


def test_a_model_for_another_batch_is_refused(affinity, make_items):
    with pytest.raises(RuntimeRefused, match="batch") as error:
        load(open_runtime({**ASKED, "batch": 2}, seed=0), make_items(1)[0])
    assert error.value.reason == "malformed"


def test_without_onnx_runtime_the_agent_says_how_to_get_it():
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from device_agents.runtimes import open_runtime\n"
        f"open_runtime({ASKED!r}, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install onnxruntime" in done.stderr


def test_a_node_that_was_left_to_another_provider_is_refused():
    def session(*parts):
        nodes = [SimpleNamespace(op_type="Conv")]
        assigned = [SimpleNamespace(ep_name=name, get_nodes=lambda: nodes) for name in parts]
        return SimpleNamespace(
            get_providers=lambda: [parts[0], "CPUExecutionProvider"],
            get_provider_graph_assignment_info=lambda: assigned,
        )

    check_provider(session(CUDA), CUDA)
    check_provider(session(XNNPACK, "CPUExecutionProvider"), XNNPACK)  # by its design
    with pytest.raises(RuntimeRefused, match="left these ops to another provider: Conv") as error:
        check_provider(session(CUDA, "CPUExecutionProvider"), CUDA)
    assert error.value.reason == "unsupported-op"
