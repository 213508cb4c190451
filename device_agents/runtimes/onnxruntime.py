"""ONNX Runtime: one session per model, pinned threads, random inputs, and the provider that was asked for or none."""

from device_agents.facts import pin_to_cores, power_mode
from device_agents.runtimes import RuntimeRefused

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``."""
    try:
        import numpy
        import onnxruntime
    except ImportError as error:
        raise RuntimeRefused(
            "ONNX Runtime is not installed here ({}): pip install onnxruntime".format(error)
        ) from error
    return OnnxRuntime(onnxruntime, numpy, asked, seed)


class OnnxRuntime:
    """ONNX Runtime in this process, on as many cores as it has threads."""

    real = True

    def __init__(self, onnxruntime, numpy, asked, seed):
        self._onnxruntime = onnxruntime
        self._random = numpy.random.RandomState(seed)
        self._provider = asked["provider"]
        self._batch = asked["batch"]
        self._threads = asked["threads"]
        if self._provider not in onnxruntime.get_available_providers():
            have = ", ".join(onnxruntime.get_available_providers())
            raise RuntimeRefused("ONNX Runtime here has no {}; it has {}".format(self._provider, have))
        cores = pin_to_cores(self._threads)
        if cores is not None and len(cores) < self._threads:
            raise RuntimeRefused(
                "{} threads are asked for, this process may use {} cores".format(self._threads, len(cores))
            )
        self.facts = {"cores_used": cores, "graph_optimization": "all", "execution_mode": "sequential"}
        self.condition = {
            "runtime": "onnxruntime",
            "runtime_version": onnxruntime.__version__,
            "provider": self._provider,
            "precision": asked["precision"],
            "batch": self._batch,
            "threads": self._threads,
            "simulated": False,
            "power_mode": power_mode(),
        }

    def load(self, item, fetch):
        """Open an item's model; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: the session does not run on the provider that was asked for, or has an unusual input.
        """
        session = self._onnxruntime.InferenceSession(fetch(), self._options(), providers=[self._provider])
        first = session.get_providers()[0]
        if first != self._provider:
            raise RuntimeRefused("asked for {}, ONNX Runtime took {}".format(self._provider, first))
        return OnnxSession(session, {node.name: self._input(node) for node in session.get_inputs()})

    def _options(self):
        runtime = self._onnxruntime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only
        return options

    def _input(self, node):
        """A random input: zeros would meet shortcuts that real images do not."""
        if node.type not in TYPES:
            raise RuntimeRefused("input {} is a {}".format(node.name, node.type), "malformed")
        shape = list(node.shape)
        if shape and not isinstance(shape[0], int):
            shape[0] = self._batch
        if not all(isinstance(side, int) for side in shape):
            raise RuntimeRefused("input {} has the open shape {}".format(node.name, node.shape), "malformed")
        if shape[:1] != [self._batch]:
            raise RuntimeRefused(
                "input {} is for batch {}, asked is {}".format(node.name, shape[:1], self._batch), "malformed"
            )
        return self._random.standard_normal(shape).astype(TYPES[node.type])


class OnnxSession:
    """An open model with its inputs."""

    def __init__(self, session, feeds):
        self._run = session.run
        self._feeds = feeds
        self._outputs = [node.name for node in session.get_outputs()]

    def run(self):
        """One inference, as a user's program calls it: outputs come back as arrays."""
        self._run(self._outputs, self._feeds)
