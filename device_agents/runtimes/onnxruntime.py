"""ONNX Runtime: one session per model, pinned threads, random inputs, and the provider that was asked for or none."""

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import check_asked, condition, library, pin
from device_agents.runtimes.half import to_fp16
from device_agents.runtimes.inputs import Inputs

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO, XNNPACK = "OpenVINOExecutionProvider", "XnnpackExecutionProvider"
PRECISIONS = {
    CPU: ("fp32", "fp16", "int8"),  # as the model's own nodes say
    CUDA: ("fp32", "fp16"),
    TENSORRT: ("fp32", "fp16"),
    OPENVINO: ("fp32",),
    XNNPACK: ("fp32",),
}
ON_GPU = (CUDA, TENSORRT)
REASONS = {  # ONNX Runtime's own exceptions, by name: those that another try would meet again
    "InvalidProtobuf": "malformed",
    "InvalidGraph": "malformed",
    "InvalidArgument": "malformed",
    "NotImplemented": "unsupported-op",
}
FELL_BACK = "fallback to CPU EP has been explicitly disabled"  # how ONNX Runtime words it


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is an execution provider by ONNX Runtime's own name."""
    onnxruntime = library("onnxruntime", "ONNX Runtime", "pip install onnxruntime")
    here = onnxruntime.get_available_providers()
    check_asked(asked, "ONNX Runtime here", {name: PRECISIONS[name] for name in PRECISIONS if name in here})
    return OnnxRuntime(onnxruntime, asked, seed)


class OnnxRuntime:
    """ONNX Runtime in this process, on as many cores as it has threads."""

    real = True

    def __init__(self, onnxruntime, asked, seed):
        self._onnxruntime = onnxruntime
        self._inputs = Inputs(asked["batch"], seed)
        self._provider = asked["provider"]
        self._threads = asked["threads"]
        self._cast = asked["precision"] == "fp16" and self._provider == CUDA  # it takes the precision from the model
        self._provider_options = provider_options(asked)
        self.facts = {
            "cores_used": pin(self._threads),
            "graph_optimization": "all",
            "execution_mode": "sequential",
            "provider_options": self._provider_options,
        }
        self.condition = condition(asked, onnxruntime.__version__)

    def load(self, item, fetch):
        """Open an item's model; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: it cannot be read, does not run on the provider that was asked for, or has an unusual input.
        """
        model = to_fp16(fetch()) if self._cast else fetch()
        providers = [(self._provider, self._provider_options)]
        try:
            session = self._onnxruntime.InferenceSession(model, self._options(), providers=providers)
        except Exception as error:  # its exceptions share no base class but this
            reason = "unsupported-op" if FELL_BACK in str(error) else REASONS.get(type(error).__name__, "failed")
            raise RuntimeRefused(" ".join(str(error).split()), reason) from error
        check_provider(session, self._provider)
        feeds = {node.name: self._input(node) for node in session.get_inputs()}
        return (
            BoundSession(session, feeds, self._onnxruntime) if self._provider in ON_GPU else OnnxSession(session, feeds)
        )

    def _options(self):
        runtime = self._onnxruntime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = (
            1 if self._provider == XNNPACK else self._threads
        )  # XNNPACK has threads of its own
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only
        if self._provider != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self._provider not in (CPU, XNNPACK):
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _input(self, node):
        if node.type != "tensor(float)":
            raise RuntimeRefused("input {} is a {}".format(node.name, node.type), "malformed")
        return self._inputs.make(node.name, node.shape)


def provider_options(asked):
    """What a provider must be told, by ONNX Runtime's names of the options."""
    threads = str(asked["threads"])
    return {
        CPU: {},
        CUDA: {"use_tf32": "0"},  # fp32 means fp32
        TENSORRT: {"trt_fp16_enable": "1" if asked["precision"] == "fp16" else "0"},
        OPENVINO: {"device_type": "CPU", "precision": "FP32", "num_of_threads": threads, "num_streams": "1"},
        XNNPACK: {"intra_op_num_threads": threads},
    }[asked["provider"]]


def check_provider(session, provider):
    """Refuse a session that fell back to another provider, as a whole or with some nodes, as far as it can be asked.

    XNNPACK has kernels for a part of the ops only and leaves the rest to the CPU's by design: some must be its own.
    """
    first = session.get_providers()[0]
    if first != provider:
        raise RuntimeRefused("asked for {}, ONNX Runtime took {}".format(provider, first))
    if provider == CPU or not hasattr(session, "get_provider_graph_assignment_info"):  # since 1.24
        return
    parts = session.get_provider_graph_assignment_info()
    others = [node.op_type for part in parts if part.ep_name != provider for node in part.get_nodes()]
    if others and (provider != XNNPACK or all(part.ep_name != provider for part in parts)):
        ops = ", ".join(sorted(set(others)))
        raise RuntimeRefused("{} left these ops to another provider: {}".format(provider, ops), "unsupported-op")


class OnnxSession:
    """An open model with its inputs."""

    def __init__(self, session, feeds):
        self._run = session.run
        self._feeds = feeds
        self._outputs = [node.name for node in session.get_outputs()]

    def run(self):
        """One inference, as a user's program calls it: outputs come back as arrays."""
        self._run(self._outputs, self._feeds)

    def outputs(self):
        """What the model answers to the inputs."""
        return self._run(self._outputs, self._feeds)


class BoundSession:
    """An open model whose inputs and outputs lie on the GPU: copying them is not timed."""

    def __init__(self, session, feeds, onnxruntime):
        self._binding = session.io_binding()
        self._run = session.run_with_iobinding
        for name, value in feeds.items():
            self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for node in session.get_outputs():
            self._binding.bind_output(node.name, "cuda", 0)

    def run(self):
        """One inference, until the GPU is done."""
        self._run(self._binding)
        self._binding.synchronize_outputs()

    def outputs(self):
        """What the model answers to the inputs."""
        self.run()
        return self._binding.copy_outputs_to_cpu()
