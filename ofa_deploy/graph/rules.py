"""What a target allows in a graph, checked on the graph that was written."""

from __future__ import annotations

import onnx

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError, UsageError


def check_graph(model: onnx.ModelProto, target: TargetProfile) -> None:
    """Check a graph: no op that the target forbids, valid ONNX for its opset, shapes that agree with each other.

    Raises:
        UsageError: names the first node that breaks a rule, its op, and the rule.
        OfaDeployError: the graph is not valid ONNX.
    """
    for node in model.graph.node:
        if node.op_type in target.forbidden_ops:
            raise UsageError(
                f"target {target.name}: node {node.name} is a {node.op_type}, which the profile's forbidden_ops rules "
                "out; search a space whose blocks do without it, or correct the profile"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OfaDeployError(f"target {target.name}: not a valid graph: {' '.join(str(error).split())}") from error
