"""TensorRT: real builds with TensorRT-RTX where installed, which needs no GPU for that; the rest on stand-ins."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from device_agents.runtimes import RuntimeRefused, engines
from device_agents.runtimes.tensorrt import TensorRtRuntime, TensorRtSession, build_plan, make_log, must, tensors_of


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


class Engine:
    """A deserialized plan, by the old API."""

    num_bindings = 2
    get_binding_name = staticmethod(["input", "output"].__getitem__)
    binding_is_input = staticmethod([True, False].__getitem__)

    def __init__(self, cuda):
        self.cuda = cuda

    def get_binding_shape(self, place):
        return (1, 3)

    def get_binding_dtype(self, place):
        return "float"

    def create_execution_context(self):
        return OldContext(self.cuda)


class Bench:
    """The runtime on a made-up TensorRT, whose builder only counts."""

    def __init__(self, monkeypatch):
        self.built, self.loaded = [], []
        monkeypatch.setattr("device_agents.runtimes.tensorrt.build_plan", self.build)

    def build(self, trt, log, model, precision):
        self.built.append((model, precision))
        return b"plan of " + model

    def open(self, version="8.2.1", precision="fp16", provider="TensorRT"):
        cuda = Cuda(room=99)

        def load(plan):
            self.loaded.append(plan)
            return Engine(cuda)

        trt = SimpleNamespace(
            __version__=version,
            ILogger=type("ILogger", (), {}),
            BuilderFlag=SimpleNamespace(FP16=1),
            Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=load),
            float32="float",
        )
        asked = {"runtime": "tensorrt", "provider": provider, "precision": precision, "batch": 1, "threads": 1}
        return TensorRtRuntime(trt, cuda, asked, 0)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    before = os.sched_getaffinity(0)
    monkeypatch.setenv(engines.FOLDER, str(tmp_path / "engines"))
    yield Bench(monkeypatch)
    os.sched_setaffinity(0, before)


def test_an_engine_is_built_once_for_a_model_a_version_and_a_precision(bench):
    for _ in range(2):  # two runs of the agent
        bench.open().load({}, lambda: b"one").close()
    assert (bench.built, bench.loaded) == ([(b"one", "fp16")], [b"plan of one"] * 2)
    others = ({"version": "8.4.0"}, {"precision": "fp32"}, {"provider": "TensorRT-RTX"})
    for changed in others:
        bench.open(**changed).load({}, lambda: b"one")
    bench.open().load({}, lambda: b"two")
    assert len(bench.built) == 1 + len(others) + 1


def test_an_engine_that_was_changed_since_is_built_again(bench, tmp_path):
    runtime = bench.open()
    runtime.load({}, lambda: b"one")
    (kept,) = (tmp_path / "engines").glob("*.engine")
    kept.write_bytes(b"another's")
    runtime.load({}, lambda: b"one")
    assert (len(bench.built), bench.loaded[-1]) == (2, b"plan of one")


def test_a_full_disk_costs_the_engines_that_nobody_uses(bench, tmp_path, monkeypatch):
    def full(path, *mode):
        if str(path).endswith(".building") and mode == ("wb",) and list((tmp_path / "engines").glob("*.engine")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return Path(path).open(*mode)

    bench.open().load({}, lambda: b"old")
    monkeypatch.setattr(engines, "open", full, raising=False)
    runtime = bench.open()
    runtime.load({}, lambda: b"new")
    assert bench.loaded[-1] == b"plan of new"
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 1
    with pytest.raises(RuntimeRefused, match="No space left on device; free space there"):
        runtime.load({}, lambda: b"third")
