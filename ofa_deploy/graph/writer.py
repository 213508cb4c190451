"""A network, its weights and a target's rules become one ONNX model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

import ofa_deploy
from ofa_deploy.blocks import Network, check_weights
from ofa_deploy.blocks.network import INPUT, INPUTS
from ofa_deploy.config import TargetProfile
from ofa_deploy.graph.nodes import NodeList, write_block
from ofa_deploy.graph.rules import check_graph


def write_onnx(network: Network, weights: Mapping[str, np.ndarray], target: TargetProfile) -> onnx.ModelProto:
    """Write a network for a target: batch norm folded, fp32, every shape static, the batch from the target.

    The graph is exactly that of its blocks: the nodes of a network are the nodes of its blocks, one block after the
    other. Its input is ``input``, a cell's second one ``input2``; its output is ``logits``, or ``output`` where it does
    not end as a network does.

    Args:
        network: one block or many.
        weights: named and shaped as ``blocks.network_shapes`` says.
        target: its opset, forbidden ops and batch are obeyed.

    Raises:
        OfaDeployError: the weights do not fit the network, or are not finite.
        UsageError: the graph needs an op that the target forbids.
    """
    check_weights(network, weights)
    out, written = NodeList(weights, target), {INPUT - i: name for i, name in enumerate(INPUTS)}
    for i, (name, op) in enumerate(zip(network.names, network.ops, strict=True)):
        written[i] = write_block(out, op.block, name, *(written[source] for source in network.sources[i]))
    complete = len(network.ops) > 1 and network.ops[-1].kind == "classifier"
    out.nodes[-1].output[0] = "logits" if complete else "output"
    graph = helper.make_graph(
        out.nodes,
        f"network-{network.key[:12]}",
        [_tensor(written[INPUT - i], target.batch, shape) for i, shape in enumerate(network.input_shapes)],
        [_tensor(out.nodes[-1].output[0], target.batch, network.ops[-1].output_shape)],
        out.constants,
    )
    opset = helper.make_opsetid("", target.opset)
    model = helper.make_model(
        graph,
        opset_imports=[opset],
        # the oldest file format that knows the opset, so that old runtimes read it
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="ofa-deploy",
        producer_version=ofa_deploy.__version__,
    )
    check_graph(model, target)
    return model


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """The file's content; equal models give equal bytes."""
    return model.SerializeToString(deterministic=True)


def _tensor(name: str, batch: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
