"""PyTorch, as a small interpreter of the ops that our graphs have: on the CPU op by op, on a GPU as one CUDA graph.

Tensors keep ONNX's layout (NCHW). TF32 is off: fp32 means fp32.
"""

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import check_asked, condition, library, malformed, pin
from device_agents.runtimes.inputs import Inputs

PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "fp16")}
CAPTURE_WARM_UP = 3  # runs before a CUDA graph is captured: cuDNN picks its kernels in them


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is ``cpu`` or ``cuda``."""
    torch = library("torch", "PyTorch", "pip install torch onnx")
    onnx = library("onnx", "onnx, which reads the models for PyTorch,", "pip install onnx")
    here = {name: known for name, known in PRECISIONS.items() if name == "cpu" or torch.cuda.is_available()}
    check_asked(asked, "PyTorch here", here)
    return TorchRuntime(torch, onnx, asked, seed)


class TorchRuntime:
    """PyTorch in this process, on as many cores as it has threads, or on the first GPU."""

    real = True

    def __init__(self, torch, onnx, asked, seed):
        self._torch = torch
        self._onnx = onnx
        self._inputs = Inputs(asked["batch"], seed)
        self._device = asked["provider"]
        self._type = torch.float16 if asked["precision"] == "fp16" else torch.float32
        self.facts = {"cores_used": pin(asked["threads"]), "layout": "NCHW"}
        torch.set_num_threads(asked["threads"])
        if self._device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = True
            self.facts.update(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda, cuda_graph=True)
        self.condition = condition(asked, torch.__version__)

    def load(self, item, fetch):
        """Open an item's model; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: it cannot be read, or has an op or an input that this interpreter does not know.
        """
        try:
            graph = self._onnx.load_from_string(fetch()).graph
        except Exception as error:  # protobuf's exceptions share no base class but this
            raise malformed(error) from error
        if not graph.node:
            raise RuntimeRefused("the model has no nodes", "malformed")
        constants = {tensor.name: self._constant(tensor) for tensor in graph.initializer}
        fed = [value for value in graph.input if value.name not in constants]
        feeds = {value.name: self._tensor(self._inputs.make(value.name, self._shape(value))) for value in fed}
        steps = [self._step(node) for node in graph.node]
        program = Program(steps, dict(constants, **feeds), [value.name for value in graph.output])
        session = CudaGraphSession if self._device == "cuda" else TorchSession
        with self._torch.inference_mode():
            return session(self._torch, program)

    def _constant(self, tensor):
        """A weight on the device; whole numbers, which say where to slice, stay a list here."""
        array = self._onnx.numpy_helper.to_array(tensor)
        if tensor.data_type == self._onnx.TensorProto.INT64:
            return array.reshape(-1).tolist()
        if tensor.data_type != self._onnx.TensorProto.FLOAT:
            raise RuntimeRefused("weight {} is not fp32".format(tensor.name), "malformed")
        return self._tensor(array.copy())

    def _shape(self, value):
        kind = value.type.tensor_type
        if kind.elem_type != self._onnx.TensorProto.FLOAT:
            raise RuntimeRefused("input {} is not fp32".format(value.name), "malformed")
        return [side.dim_value or None for side in kind.shape.dim]

    def _tensor(self, array):
        return self._torch.from_numpy(array).to(self._device, self._type)

    def _step(self, node):
        if node.op_type not in OPS or node.domain not in ("", "ai.onnx"):
            raise RuntimeRefused("node {} is a {}".format(node.name, node.op_type), "unsupported-op")
        if len(node.output) != 1:
            raise RuntimeRefused("node {} has {} outputs".format(node.name, len(node.output)), "unsupported-op")
        given = {part.name: self._onnx.helper.get_attribute_value(part) for part in node.attribute}
        return OPS[node.op_type](self._torch, given), list(node.input), node.output[0]


class Program:
    """A graph's steps in order: each a function, the names of its inputs, and that of its output."""

    def __init__(self, steps, values, outputs):
        self._steps = steps
        self._values = values
        self._outputs = outputs

    def __call__(self):
        """Run all steps; returns the outputs."""
        values = dict(self._values)
        for function, inputs, output in self._steps:
            values[output] = function(*[values[name] if name else None for name in inputs])
        return [values[name] for name in self._outputs]


class TorchSession:
    """An open model with its inputs, run op by op."""

    def __init__(self, torch, program):
        self._torch = torch
        self._program = program

    def run(self):
        """One inference."""
        with self._torch.inference_mode():
            return self._program()

    def outputs(self):
        """What the model answers to the inputs."""
        return [value.numpy() for value in self.run()]


class CudaGraphSession:
    """An open model as a captured CUDA graph: its kernels are launched at once, without Python between them."""

    def __init__(self, torch, program):
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(CAPTURE_WARM_UP):
                program()
        self._stream.synchronize()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._outputs = program()
        self._program = program  # owns the weights and inputs that the graph reads
        self._synchronize = torch.cuda.synchronize

    def run(self):
        """One inference, until the GPU is done."""
        self._graph.replay()
        self._synchronize()

    def outputs(self):
        """What the model answers to the inputs."""
        self.run()
        return [value.float().cpu().numpy() for value in self._outputs]


def _window(given, op):
    """Stride, padding and dilation of an op that slides over an image."""
    pads = given.get("pads", [0, 0, 0, 0])
    if len(pads) != 4 or pads[:2] != pads[2:] or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise RuntimeRefused("a {} is padded differently on its sides".format(op), "unsupported-op")
    return {"stride": given.get("strides", 1), "padding": pads[:2], "dilation": given.get("dilations", 1)}


def _conv(torch, given):
    groups, pads = given.get("group", 1), given.get("pads", [])
    if len(pads) == 4 and pads[:2] != pads[2:]:  # which torch's own convolution cannot be told
        shape, around = _window(dict(given, pads=[0, 0, 0, 0]), "Conv"), [pads[1], pads[3], pads[0], pads[2]]
        pad = torch.nn.functional.pad
        return lambda x, weight, bias=None: torch.conv2d(pad(x, around), weight, bias, groups=groups, **shape)
    shape = _window(given, "Conv")
    return lambda x, weight, bias=None: torch.conv2d(x, weight, bias, groups=groups, **shape)


def _max_pool(torch, given):
    shape, kernel = _pooling(given, "MaxPool")
    return lambda x: torch.nn.functional.max_pool2d(x, kernel, **shape)


def _average_pool(torch, given):
    pads, window = given.get("pads", []), (given["kernel_shape"], given.get("strides"))
    if pads[:2] == [0, 0] and any(pads) and window == ([2, 2], [2, 2]) and not given.get("count_include_pad", 0):
        return _halved(torch, pads[2:])
    shape, kernel = _pooling(given, "AveragePool")
    if shape.pop("dilation") not in (1, [1, 1]):
        raise RuntimeRefused("an AveragePool is dilated", "unsupported-op")
    padded = bool(given.get("count_include_pad", 0))
    return lambda x: torch.nn.functional.avg_pool2d(x, kernel, count_include_pad=padded, **shape)


def _halved(torch, pads):
    """Means of 2x2; the last window of an odd side, which is padded, has one row or column."""

    def mean(x):
        if [side % 2 for side in x.shape[2:]] != pads:
            raise RuntimeRefused("an AveragePool is padded differently on its sides", "unsupported-op")
        return torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)

    return mean


def _pooling(given, op):
    kernel = given["kernel_shape"]
    if len(kernel) != 2 or given.get("ceil_mode", 0):
        raise RuntimeRefused("a {} is not over whole windows of an image".format(op), "unsupported-op")
    return dict(_window(given, op), stride=given.get("strides", [1, 1])), kernel


def _concat(torch, given):
    axis = given["axis"]
    return lambda *parts: torch.cat(parts, axis)


def _slice(torch, given):
    def cut(x, starts=None, ends=None, axes=None, steps=None):
        if not (
            isinstance(starts, list) and all(isinstance(known, (list, type(None))) for known in (ends, axes, steps))
        ):
            raise RuntimeRefused("where a Slice cuts is no constant", "unsupported-op")
        whole = [slice(None)] * x.dim()
        for place, start in enumerate(starts):
            step = steps[place] if steps else 1
            if step < 1:
                raise RuntimeRefused("a Slice goes backwards", "unsupported-op")
            whole[axes[place] if axes else place] = slice(start, ends[place], step)
        return x[tuple(whole)]

    return cut


def _clip(torch, given):
    return lambda x, low=None, high=None: torch.clamp(x, low, high)


def _hard_sigmoid(torch, given):
    alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:  # PyTorch's own, in one kernel
        return torch.nn.functional.hardsigmoid
    return lambda x: torch.clamp(x * alpha + beta, 0, 1)


def _flatten(torch, given):
    axis = given.get("axis", 1)
    if axis != 1:
        raise RuntimeRefused("a Flatten is at axis {}".format(axis), "unsupported-op")
    return lambda x: torch.flatten(x, 1)


def _gemm(torch, given):
    if given.get("transA", 0) or not given.get("transB", 0) or (given.get("alpha", 1), given.get("beta", 1)) != (1, 1):
        raise RuntimeRefused("a Gemm is no linear layer", "unsupported-op")
    return torch.nn.functional.linear


def _batch_norm(torch, given):
    norm, eps = torch.nn.functional.batch_norm, given.get("epsilon", 1e-5)
    return lambda x, scale, shift, mean, var: norm(x, mean, var, scale, shift, eps=eps)


def _layer_norm(torch, given):
    _last(given, "LayerNormalization")
    norm, eps = torch.nn.functional.layer_norm, given.get("epsilon", 1e-5)
    return lambda x, scale, shift=None: norm(x, scale.shape, scale, shift, eps)


def _softmax(torch, given):
    _last(given, "Softmax")
    return lambda x: torch.softmax(x, -1)


def _last(given, op):
    if given.get("axis", -1) != -1:
        raise RuntimeRefused("a {} is not over the last dimension".format(op), "unsupported-op")


def _reduce_mean(torch, given):
    keep = bool(given.get("keepdims", 1))

    def mean(x, axes=None):
        axes = given.get("axes", axes)
        if not isinstance(axes, list):
            raise RuntimeRefused("what a ReduceMean is over is no constant", "unsupported-op")
        return x.mean(axes, keepdim=keep)

    return mean


def _reshape(torch, given):
    def reshape(x, to):
        if not isinstance(to, list) or 0 in to:
            raise RuntimeRefused("the shape of a Reshape is no constant", "unsupported-op")
        return x.reshape(to)

    return reshape


OPS = {
    "Add": lambda torch, given: torch.add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": lambda torch, given: torch.div,
    "Erf": lambda torch, given: torch.erf,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda torch, given: lambda x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda torch, given: torch.nn.functional.hardswish,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda torch, given: torch.matmul,
    "MaxPool": _max_pool,
    "Mul": lambda torch, given: torch.mul,
    "ReduceMean": _reduce_mean,
    "Relu": lambda torch, given: torch.relu,
    "Reshape": _reshape,
    "Sigmoid": lambda torch, given: torch.sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": lambda torch, given: torch.sqrt,
    "Sub": lambda torch, given: torch.sub,
    "Transpose": lambda torch, given: lambda x: x.permute(given["perm"]),
}
