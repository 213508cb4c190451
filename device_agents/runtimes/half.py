"""A fp32 model as one that computes in fp16, for runtimes that take the precision from the model."""

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import library, malformed


def to_fp16(model):
    """The same model with fp16 weights and values; what goes in and comes out stays fp32, cast inside.

    Args:
        model: bytes of an ONNX file all of whose tensors are fp32, but for int64 shapes and places, which stay so.

    Returns:
        Bytes of an ONNX file.

    Raises:
        RuntimeRefused: it cannot be read, or has tensors of another type; or ``onnx`` is not installed.
    """
    onnx = library("onnx", "onnx", "pip install onnx")
    try:
        read = onnx.load_from_string(model)
    except Exception as error:  # protobuf's exceptions share no base class but this
        raise malformed(error) from error
    graph = read.graph
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT64:
            tensor.CopyFrom(_half(onnx, tensor))
    for node in graph.node:
        _rename(node.input, {value.name for value in graph.input}, ".fp16")
        _rename(node.output, {value.name for value in graph.output}, ".fp16")
        _rename(node.input, {value.name for value in graph.output}, ".fp16")
    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    into = [_cast(onnx, value.name, value.name + ".fp16", float16) for value in graph.input]
    out = [_cast(onnx, value.name + ".fp16", value.name, float32) for value in graph.output]
    nodes = into + list(graph.node) + out
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
    return read.SerializeToString()


def _half(onnx, tensor):
    if tensor.data_type != onnx.TensorProto.FLOAT:
        raise RuntimeRefused("weight {} is not fp32".format(tensor.name), "malformed")
    values = onnx.numpy_helper.to_array(tensor).astype("float16")
    return onnx.numpy_helper.from_array(values, tensor.name)


def _rename(names, chosen, ending):
    for place, name in enumerate(names):
        if name in chosen:
            names[place] = name + ending


def _cast(onnx, source, result, kind):
    return onnx.helper.make_node("Cast", [source], [result], name=result + ".cast", to=kind)
