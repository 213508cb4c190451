"""What every runtime promises, asked of all that are installed here."""

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from device_agents.runtimes import RuntimeRefused, open_runtime
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import block_item, network_item
from ofa_deploy.space import PopulationCodec, load_space

PROVIDERS = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU", "torch": "cpu"}
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
pytestmark = pytest.mark.parametrize("name", PROVIDERS)


@pytest.fixture(autouse=True)
def affinity():
    """Opening a runtime pins the process."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def asked(name, **changes):
    return {"runtime": name, "provider": PROVIDERS[name], "precision": "fp32", "batch": 1, "threads": 1, **changes}


def opened(name, seed=0, **changes):
    if name != "torch":  # which the package needs anyway
        pytest.importorskip(name)
    return open_runtime(asked(name, **changes), seed)


@cache
def models():
    """A block and a network that between them have every op of our graphs, and the network for an old runtime."""
    target, codec = resolve_target("local"), PopulationCodec(load_space("tiny_16"))
    arch = codec.decode(codec.sample(1, np.random.default_rng(1)))[0]
    network = codec.space.network(arch)
    old = target.model_copy(update={"opset": 13})
    block = next(op for op in network.ops if op.se)
    items = block_item(block, target), network_item(network, arch, target), network_item(network, arch, old)
    return [item.model for item in items]


SIGNALLED = """
import gc, os, signal, sys
from device_agents.runtimes import open_runtime

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
asked = {"runtime": sys.argv[1], "provider": sys.argv[2], "precision": "fp32", "batch": 1, "threads": 1}
first, second = open_runtime(asked, 0), open_runtime(asked, 0)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def session(runtime, model):
    return runtime.load({"item": "0"}, lambda: model)


def test_runs_blocks_and_networks_as_onnx_runtime_does(name):
    runtime, reference = opened(name), opened("onnxruntime")
    for model in models():
        ours, theirs = session(runtime, model), session(reference, model)
        ours.run()
        assert np.abs(theirs.outputs()[0]).max() > 1e-3
        np.testing.assert_allclose(ours.outputs()[0], theirs.outputs()[0], **CLOSE)


def test_states_the_condition_that_was_asked_for(name):
    runtime = opened(name, batch=2)
    assert runtime.real is True
    assert {key: runtime.condition[key] for key in asked(name)} == asked(name, batch=2)
    assert sorted(set(runtime.condition) - set(asked(name))) == ["power_mode", "runtime_version", "simulated"]
    assert runtime.condition["simulated"] is False
    assert runtime.condition["runtime_version"][0].isdigit()
    json.dumps([runtime.condition, runtime.facts])
    assert len(os.sched_getaffinity(0)) == len(runtime.facts["cores_used"]) == 1


def test_inputs_are_random_and_their_seeds_repeatable(name):
    first, again, other = (session(opened(name, seed), models()[1]).outputs()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_sessions_do_not_disturb_each_other(name):
    one, other = opened(name), opened(name)
    first, second = session(one, models()[0]), session(other, models()[1])
    before = first.outputs()[0].copy()
    second.run()
    np.testing.assert_array_equal(first.outputs()[0], before)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x08\x07"])
def test_garbage_is_malformed(name, garbage):
    with pytest.raises(RuntimeRefused) as error:
        session(opened(name), garbage)
    assert error.value.reason == "malformed"
    assert "\n" not in str(error.value)


def test_a_model_for_another_batch_is_malformed(name):
    with pytest.raises(RuntimeRefused, match="batch") as error:
        session(opened(name, batch=2), models()[0])
    assert error.value.reason == "malformed"


@pytest.mark.parametrize("change", [{"provider": "nope"}, {"precision": "int3"}, {"threads": 4096}])
def test_what_cannot_be_had_is_refused(name, change):
    with pytest.raises(RuntimeRefused, match=str(*change.values())) as error:
        opened(name, **change)
    assert error.value.reason == "unsupported-op"


def test_an_op_that_it_lacks_is_an_error_of_that_model(name):
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 3]) for end in ("input", "output")]
    node = helper.make_node("NoSuchOp", ["input"], ["output"], name="strange")
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), ir_version=8)
    with pytest.raises(RuntimeRefused, match="NoSuchOp") as error:
        session(opened(name), model.SerializeToString())
    assert error.value.reason in ("unsupported-op", "malformed", "failed")


def test_signals_can_be_handled_afterwards(name):
    """Some libraries change on which stack that happens."""
    opened(name)
    arguments = [sys.executable, "-X", "faulthandler", "-c", SIGNALLED, name, PROVIDERS[name]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
