"""What a target allows in a graph, checked on the graph that was written."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError, UsageError


def check_graph(model: onnx.ModelProto, target: TargetProfile) -> None:
    """Check a graph: ops, types, opset, shapes and batch as the target wants them, valid ONNX, shapes that agree.

    Raises:
        UsageError: names the first node or tensor that breaks a rule, and the rule.
        OfaDeployError: the graph is not valid ONNX.
    """
    if broken := next(broken_rules(model, target), None):
        raise UsageError(f"target {target.name}: {broken}; search a space that does without it, or correct the profile")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OfaDeployError(f"target {target.name}: not a valid graph: {' '.join(str(error).split())}") from error


def broken_rules(model: onnx.ModelProto, target: TargetProfile) -> Iterator[str]:
    """What in a graph its target does not allow, one line each."""
    yield from _opset(model, target)
    for node in model.graph.node:
        if not target.allows(node.op_type):
            rule = "forbidden_ops rules" if node.op_type in target.forbidden_ops else "allowed_ops leaves"
            yield f"node {node.name} is a {node.op_type}, which the profile's {rule} out"
        if node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear") and target.allowed_ops:
            yield from _restrictions(node, model)
    yield from _types(model, target)
    for value in (*model.graph.input, *model.graph.output):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        if not sides or 0 in sides or sides[0] != target.batch:
            shape = ", ".join(str(side or "free") for side in sides)
            yield f"{value.name} has the shape [{shape}], which is not static with the profile's batch {target.batch}"


def _opset(model: onnx.ModelProto, target: TargetProfile) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain:
            yield f"the graph needs ops of the domain {entry.domain}, which are not ONNX's own"
        elif entry.version > target.opset:
            yield f"the graph is of opset {entry.version}, the profile's opset is {target.opset}"


def _types(model: onnx.ModelProto, target: TargetProfile) -> Iterator[str]:
    if not target.allowed_types:
        return
    tensors = [(constant.name, constant.data_type) for constant in model.graph.initializer]
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    tensors += [(value.name, value.type.tensor_type.elem_type) for value in values]
    for node in model.graph.node:
        tensors += [(node.name, attribute.i) for attribute in node.attribute if attribute.name == "to"]
    for name, kind in tensors:
        if (known := TensorProto.DataType.Name(kind)) not in target.allowed_types:
            yield f"{name} is of type {known}, which the profile's allowed_types leaves out"


def _restrictions(node: onnx.NodeProto, model: onnx.ModelProto) -> Iterator[str]:
    """Those of TensorRT's importer, by its docs/operators.md: 2-D or 3-D convolutions; zero points are 0."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    if node.op_type == "Conv":
        kernel = constants.get(node.input[1])
        if kernel is not None and len(kernel.dims) not in (4, 5):
            yield f"node {node.name} is a convolution of {len(kernel.dims) - 2} dimensions; TensorRT knows 2 and 3"
    elif len(node.input) > 2 and (point := constants.get(node.input[2])) and onnx.numpy_helper.to_array(point).any():
        yield f"node {node.name} has a zero point that is not 0, which TensorRT does not take"
