"""TensorRT's Python API, 8.2 to 11, and TensorRT-RTX's: the engine is built here, from the model, and timed with CUDA.

Up to version 10 a flag lets the builder choose fp16; later networks are strongly typed, so that the model itself is
made fp16 (see ``half``). TF32 is off: fp32 means fp32. Values that go in and come out are fp32 on the GPU; copying them
is not timed. Engines are kept (see ``engines``).
"""

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import check_asked, condition, library, pin
from device_agents.runtimes.cudart import open_cuda
from device_agents.runtimes.engines import Engines, gpu_name, no_room
from device_agents.runtimes.half import to_fp16
from device_agents.runtimes.inputs import Inputs

MODULES = {"TensorRT": "tensorrt", "TensorRT-RTX": "tensorrt_rtx"}
INSTALL = {
    "TensorRT": "it comes with JetPack; elsewhere: pip install tensorrt",
    "TensorRT-RTX": "pip install tensorrt-rtx-cu12-libs, then tensorrt-rtx-cu12-bindings, then tensorrt-rtx-cu12",
}
WORKSPACE_BYTES = 1 << 28  # for the builder's trials; a Nano has 4 GB in all
WORDS = 3  # last lines of the log that an error tells


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is ``TensorRT`` or ``TensorRT-RTX``."""
    check_asked(asked, "the tensorrt runtime", dict.fromkeys(MODULES, ("fp32", "fp16")))
    provider = asked["provider"]
    trt = library(MODULES[provider], provider, INSTALL[provider])
    return TensorRtRuntime(trt, open_cuda(), asked, seed)


def make_log(trt):
    """A logger that keeps what TensorRT complains about: it says why it returns None nowhere else."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.lines = []

        def log(self, severity, message):
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.lines.append(" ".join(message.split()))

    return Log()


def must(result, what, log, reason="failed"):
    """A result of TensorRT's, or an error with the log's last lines where it is None or False."""
    if result is None or result is False:
        said = "; ".join(log.lines[-WORDS:]) or "it does not say why"
        known = "out-of-memory" if "out of memory" in said.lower() else reason
        raise RuntimeRefused("TensorRT could not {}: {}".format(what, said), known)
    return result


def weakly_typed(trt):
    """Whether the builder may choose precisions by flags."""
    return hasattr(trt.BuilderFlag, "FP16")


def build_plan(trt, log, model, precision, *capabilities):
    """Build an engine's serialized plan; with capabilities no GPU is needed, where TensorRT can do that (RTX).

    Args:
        log: of ``make_log``.
        model: bytes of an ONNX file, fp32.
        precision: ``fp32`` or ``fp16``.
        capabilities: each a ``trt.ComputeCapability`` to build for; none for the GPU at hand.

    Raises:
        RuntimeRefused: it cannot be read, has an op that TensorRT does not know, or cannot be built.
    """
    builder = must(trt.Builder(log), "start its builder", log)
    network = must(builder.create_network(_network_flags(trt)), "make a network", log)
    _parse(trt, log, network, to_fp16(model) if precision == "fp16" and not weakly_typed(trt) else model)
    config = must(builder.create_builder_config(), "make a configuration", log)
    _configure(trt, config, precision)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
    for place, capability in enumerate(capabilities):
        must(config.set_compute_capability(capability, place), "build for {}".format(capability), log)
    return must(builder.build_serialized_network(network, config), "build the engine", log)


def _network_flags(trt):
    """Batches are explicit: by a flag up to 9, always later; without precision flags the types are the model's."""
    flags = trt.NetworkDefinitionCreationFlag
    name = "EXPLICIT_BATCH" if weakly_typed(trt) else "STRONGLY_TYPED"
    return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0


def _parse(trt, log, network, model):
    parser = must(trt.OnnxParser(network, log), "start its parser", log)
    if parser.parse(model) and network.num_outputs:
        return
    errors = [parser.get_error(place) for place in range(parser.num_errors)]
    log.lines.extend(" ".join(error.desc().split()) for error in errors)
    unsupported = any(error.code() == trt.ErrorCode.UNSUPPORTED_NODE for error in errors if hasattr(trt, "ErrorCode"))
    must(None, "read the model", log, "unsupported-op" if unsupported else "malformed")


def _configure(trt, config, precision):
    if hasattr(config, "set_memory_pool_limit"):  # since 8.4
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    else:
        config.max_workspace_size = WORKSPACE_BYTES
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if precision == "fp16" and weakly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)


class TensorRtRuntime:
    """TensorRT in this process, on the first GPU."""

    real = True

    def __init__(self, trt, cuda, asked, seed):
        self._trt = trt
        self._cuda = cuda
        self._numpy = library("numpy", "numpy", "pip install numpy")
        self._precision = asked["precision"]
        self._inputs = Inputs(asked["batch"], seed)
        self._log = make_log(trt)
        self._runtime = must(trt.Runtime(self._log), "start", self._log)
        self._engines = Engines()
        self.facts = {
            "cores_used": pin(asked["threads"]),
            "typing": "weak" if weakly_typed(trt) else "strong",
            "workspace_bytes": WORKSPACE_BYTES,
            "gpu": gpu_name(),
            "engines": self._engines.folder,
        }
        self.condition = condition(asked, trt.__version__)
        self._version = "{} {}".format(asked["provider"], trt.__version__)
        self._flags = ["python", self._precision, "no-tf32", "workspace={}".format(WORKSPACE_BYTES)]

    def load(self, item, fetch):
        """Build an item's engine, or take the one that was built here before; ``fetch()`` gives the ONNX file's bytes.

        Raises:
            RuntimeRefused: see ``build_plan``; or it has an unusual input, or does not fit the GPU or the disk.
        """
        del self._log.lines[:]
        engine = must(self._runtime.deserialize_cuda_engine(self._plan(fetch())), "load its engine", self._log)
        context = must(engine.create_execution_context(), "prepare its engine", self._log)
        tensors = tensors_of(self._trt, engine)
        arrays = {name: self._array(name, shape, kind, is_input) for name, shape, kind, is_input in tensors}
        outputs = [name for name, _, _, is_input in tensors if not is_input]
        return TensorRtSession(self._cuda, context, arrays, outputs, self._log, engine)

    def _plan(self, model):
        """The serialized engine of a model."""

        def build(path):
            self._engines.write(path, build_plan(self._trt, self._log, model, self._precision))

        key = self._engines.key(model, self._version, self.facts["gpu"], self._flags)
        try:
            with open(self._engines.get(key, build), "rb") as file:
                return file.read()
        except OSError as error:
            raise RuntimeRefused(no_room(self._engines.folder, error.strerror), "failed") from error

    def _array(self, name, shape, kind, is_input):
        if kind != self._trt.float32:
            raise RuntimeRefused("{} is {}, not fp32".format(name, kind), "malformed")
        return self._inputs.make(name, shape) if is_input else self._numpy.empty(shape, "float32")


def tensors_of(trt, engine):
    """An engine's inputs and outputs in its own order: name, shape, type, and whether it is an input."""
    if hasattr(engine, "num_io_tensors"):  # since 8.5
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        return [
            (name, tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name), modes[name]) for name in names
        ]
    return [
        (engine.get_binding_name(i), tuple(engine.get_binding_shape(i)), engine.get_binding_dtype(i), bool(is_input))
        for i, is_input in ((i, engine.binding_is_input(i)) for i in range(engine.num_bindings))
    ]


class TensorRtSession:
    """An engine with its inputs and outputs on the GPU."""

    def __init__(self, cuda, context, arrays, outputs, log, engine):
        self._cuda = cuda
        self._context = context
        self._arrays = arrays
        self._outputs = outputs
        self._log = log
        self._engine = engine  # must outlive its context
        self._stream = cuda.stream()
        self._addresses = {}
        try:
            for name, array in arrays.items():
                self._addresses[name] = cuda.allocate(array.nbytes)
                cuda.upload(self._addresses[name], array)
        except Exception:
            self.close()
            raise
        self._enqueue = self._enqueue_v3() if hasattr(context, "execute_async_v3") else self._enqueue_v2()

    def _enqueue_v3(self):
        for name, address in self._addresses.items():
            must(self._context.set_tensor_address(name, address), "take the address of " + name, self._log)
        return lambda: self._context.execute_async_v3(self._stream)

    def _enqueue_v2(self):
        """Up to 8.4; the addresses in the order of the engine's bindings."""
        bindings = list(self._addresses.values())
        return lambda: self._context.execute_async_v2(bindings, self._stream)

    def run(self):
        """One inference, until the GPU is done."""
        if not self._enqueue():
            must(None, "run its engine", self._log)
        self._cuda.synchronize(self._stream)

    def outputs(self):
        """What the model answers to the inputs."""
        self.run()
        for name in self._outputs:
            self._cuda.download(self._arrays[name], self._addresses[name])
        return [self._arrays[name].copy() for name in self._outputs]

    def close(self):
        """Give the GPU's memory back."""
        while self._addresses:
            self._cuda.free(self._addresses.popitem()[1])
        self._cuda.close_stream(self._stream)
