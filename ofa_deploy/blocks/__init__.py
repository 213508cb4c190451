"""The waist: a block is a graph of layers. Families make blocks, interpreters read their layers, and neither knows the
other. It knows no torch and no ONNX."""

from ofa_deploy.blocks.block import INPUT, Block, Builder, Value
from ofa_deploy.blocks.layers import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Layer,
    LayerNorm,
    Layout,
    Linear,
    MatMul,
    Multiply,
    Permute,
    Pool,
    Reshape,
    Shape,
    Shift,
    Slice,
    Softmax,
)
from ofa_deploy.blocks.network import Network, Unit
from ofa_deploy.blocks.op_spec import BLOCKS, CELL_KINDS, OpSpec
from ofa_deploy.blocks.weights import check_weights, network_shapes, random_weights

__all__ = [
    "BLOCKS",
    "CELL_KINDS",
    "INPUT",
    "Activation",
    "Add",
    "BatchNorm",
    "Block",
    "Builder",
    "Concat",
    "Conv",
    "Flatten",
    "GlobalPool",
    "Layer",
    "LayerNorm",
    "Layout",
    "Linear",
    "MatMul",
    "Multiply",
    "Network",
    "OpSpec",
    "Permute",
    "Pool",
    "Reshape",
    "Shape",
    "Shift",
    "Slice",
    "Softmax",
    "Unit",
    "Value",
    "check_weights",
    "network_shapes",
    "random_weights",
]
