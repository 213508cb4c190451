"""TensorRT: real builds with TensorRT-RTX where installed, which needs no GPU for that; the rest on stand-ins."""

from types import SimpleNamespace

import numpy as np
import pytest

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.tensorrt import TensorRtSession, build_plan, make_log, must, tensors_of


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX's wheels are no extra; see INSTALL in the runtime")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_our_blocks(rtx, make_items, precision):
    plan = build_plan(rtx, make_log(rtx), make_items(1)[0].model, precision, rtx.ComputeCapability.SM80)
    assert plan.nbytes > 1000


@pytest.mark.parametrize("garbage", [b"", b"garbage"])
def test_garbage_is_malformed(rtx, garbage):
    with pytest.raises(RuntimeRefused, match="could not read the model") as error:
        build_plan(rtx, make_log(rtx), garbage, "fp32", rtx.ComputeCapability.SM80)
    assert error.value.reason == "malformed"


def test_a_none_is_an_error_with_the_logs_last_words():
    log = SimpleNamespace(lines=["first", "Error Code 1", "CUDA out of memory", "giving up"])
    with pytest.raises(RuntimeRefused, match="could not build the engine: Error Code 1; CUDA out of memory; giving up"):
        must(None, "build the engine", log)
    with pytest.raises(RuntimeRefused) as error:
        must(False, "build the engine", log)
    assert error.value.reason == "out-of-memory"
    assert must(0, "count", log) == 0


class Cuda:
    """A GPU made of a dict."""

    def __init__(self, room=8):
        self.memory, self.room, self.synchronized = {}, room, 0

    def stream(self):
        return 77

    def allocate(self, size):
        if len(self.memory) >= self.room:
            raise MemoryError("cudaMalloc: out of memory (2)")
        self.memory[1000 + len(self.memory)] = None
        return 999 + len(self.memory)

    def upload(self, address, array):
        self.memory[address] = array.copy()

    def download(self, array, address):
        array[:] = self.memory[address]

    def synchronize(self, stream):
        assert stream == 77
        self.synchronized += 1

    def free(self, address):
        del self.memory[address]

    def close_stream(self, stream):
        assert stream == 77


class OldContext:
    """The API up to 8.4."""

    def __init__(self, cuda, answers=True):
        self.cuda, self.answers = cuda, answers

    def execute_async_v2(self, bindings, stream):
        self.cuda.memory[bindings[1]] = self.cuda.memory[bindings[0]] * 2
        return self.answers


class NewContext(OldContext):
    """The API from 8.5."""

    def set_tensor_address(self, name, address):
        self.addresses = {**getattr(self, "addresses", {}), name: address}
        return True

    def execute_async_v3(self, stream):
        return self.execute_async_v2([self.addresses["input"], self.addresses["output"]], stream)


def arrays():
    return {"input": np.arange(3, dtype=np.float32), "output": np.zeros(3, np.float32)}


@pytest.mark.parametrize("context", [OldContext, NewContext])
def test_both_ways_to_enqueue_feed_the_engine(context):
    cuda = Cuda()
    session = TensorRtSession(cuda, context(cuda), arrays(), ["output"], SimpleNamespace(lines=[]), None)
    assert session.outputs()[0].tolist() == [0, 2, 4]
    assert cuda.synchronized == 1
    session.close()
    assert cuda.memory == {}


def test_an_engine_that_does_not_run_or_fit_is_an_error():
    cuda, log = Cuda(), SimpleNamespace(lines=["bad launch"])
    session = TensorRtSession(cuda, OldContext(cuda, answers=False), arrays(), ["output"], log, None)
    with pytest.raises(RuntimeRefused, match="run its engine: bad launch"):
        session.run()
    full = Cuda(room=1)
    with pytest.raises(MemoryError):
        TensorRtSession(full, OldContext(full), arrays(), ["output"], log, None)
    assert full.memory == {}


def test_tensors_are_read_by_the_old_and_the_new_api():
    trt = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"))
    new = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=["input", "output"].__getitem__,
        get_tensor_mode={"input": "in", "output": "out"}.get,
        get_tensor_shape={"input": (1, 3), "output": (1, 2)}.get,
        get_tensor_dtype=lambda name: "float",
    )
    old = SimpleNamespace(
        num_bindings=2,
        get_binding_name=["input", "output"].__getitem__,
        binding_is_input=[True, False].__getitem__,
        get_binding_shape=[(1, 3), (1, 2)].__getitem__,
        get_binding_dtype=lambda place: "float",
    )
    expected = [("input", (1, 3), "float", True), ("output", (1, 2), "float", False)]
    assert tensors_of(trt, new) == tensors_of(trt, old) == expected
