"""OpenVINO: one compiled model per session, in latency mode, one stream, pinned threads; nothing falls back."""

from functools import lru_cache

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import check_asked, condition, library, malformed, pin
from device_agents.runtimes.inputs import Inputs

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}  # OpenVINO's names; int8 is in the model
CAPABILITIES = {"FP32": "fp32", "FP16": "fp16", "BF16": "bf16", "INT8": "int8"}


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is a device by OpenVINO's own name: ``CPU`` or ``GPU``."""
    openvino = library("openvino", "OpenVINO", "pip install openvino")
    core = the_core(openvino)
    here = {device: precisions(core, device) for device in core.available_devices if device in ("CPU", "GPU")}
    check_asked(asked, "OpenVINO here", here)
    return OpenVinoRuntime(openvino, core, asked, seed)


@lru_cache(maxsize=None)
def the_core(openvino):
    """The process's one core, never given back.

    Its CPU plugin lends the thread a stack for signal handlers, and frees it with the core. Of two cores, the one that
    goes first takes away the stack that is in use, and the next signal that Python handles kills the process.
    """
    return openvino.Core()


def precisions(core, device):
    """What a device computes in natively."""
    names = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return [CAPABILITIES[name] for name in names if name in CAPABILITIES]


class OpenVinoRuntime:
    """OpenVINO in this process, on as many cores as it has threads."""

    real = True

    def __init__(self, openvino, core, asked, seed):
        self._openvino = openvino
        self._core = core
        self._inputs = Inputs(asked["batch"], seed)
        self._device = asked["provider"]
        cores = pin(asked["threads"])
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": HINTS[asked["precision"]],
        }
        if self._device == "CPU":  # its threads stay on the process's cores: pinning of its own would choose others
            self._config.update(INFERENCE_NUM_THREADS=str(asked["threads"]), ENABLE_CPU_PINNING="NO")
        self.facts = {
            "cores_used": cores,
            "device_name": core.get_property(self._device, "FULL_DEVICE_NAME"),
            "config": self._config,
        }
        self.condition = condition(asked, openvino.__version__.split("-")[0])

    def load(self, item, fetch):
        """Compile an item's model; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: it cannot be read or compiled, was compiled otherwise than asked, or has an unusual input.
        """
        try:
            model = self._core.read_model(fetch())
        except Exception as error:  # its exceptions share no base class but this
            raise malformed(error) from error
        try:
            compiled = self._core.compile_model(model, self._device, self._config)
        except RuntimeError as error:
            raise RuntimeRefused(" ".join(str(error).split()), "unsupported-op") from error
        self._check(compiled)
        request = compiled.create_infer_request()
        for place, port in enumerate(compiled.inputs):
            request.set_input_tensor(place, self._openvino.Tensor(self._input(port)))
        return OpenVinoSession(request, len(compiled.outputs))

    def _check(self, compiled):
        """Properties are wishes: what was made of them is asked of the compiled model."""
        wanted = dict(self._config, EXECUTION_DEVICES=self._device)
        for name in ("EXECUTION_DEVICES", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT"):
            if name in wanted:
                got = compiled.get_property(name)
                texts = [text_of(value) for value in (got if isinstance(got, list) else [got])]
                if {text.split(".")[0] for text in texts} != {wanted[name]}:  # a second GPU is GPU.1
                    message = "asked for {} {}, OpenVINO took {}".format(name, wanted[name], ", ".join(texts))
                    raise RuntimeRefused(message)

    def _input(self, port):
        name = port.get_any_name()
        if text_of(port.get_element_type()) != "f32":
            raise RuntimeRefused("input {} is a {}".format(name, text_of(port.get_element_type())), "malformed")
        shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
        return self._inputs.make(name, shape)


def text_of(value):
    """An element type by its short name, anything else as text."""
    return value.get_type_name() if hasattr(value, "get_type_name") else str(value)


class OpenVinoSession:
    """A compiled model with its inputs in place."""

    def __init__(self, request, outputs):
        self._request = request
        self._outputs = outputs
        self.run = request.infer  # one inference; outputs stay in the request's own tensors

    def outputs(self):
        """What the model answers to the inputs."""
        self.run()
        return [self._request.get_output_tensor(place).data.copy() for place in range(self._outputs)]
