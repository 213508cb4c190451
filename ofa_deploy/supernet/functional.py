"""An op executed with given weights: what lets one set of weights serve every subnet without any module's state."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.space import OpSpec
from ofa_deploy.space.network import BLOCKS
from ofa_deploy.supernet.blocks import activate, formatted
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.synchronised import batch_norm, group_around

Tensors = Mapping[str, Tensor]


def run_op(op: OpSpec, x: Tensor, weights: Tensors, training: bool) -> Tensor:
    """One op with the weights of ``space.weight_shapes(op)``.

    Args:
        x: ``[N, cin, h, w]``; for a classifier ``[N, cin]``.
        training: batch norm normalises by the batch and leaves the running statistics alone; otherwise it uses them.

    Raises:
        ValueError: a supernet has no such op: the ops of cells are modules of their own (``cell_blocks``).
    """
    if op.kind == "classifier":
        return _classifier(op, x, weights)
    if op.kind in BLOCKS:
        return _mbconv(op, x, weights, training)
    if op.kind not in ("stem", "head"):
        raise ValueError(f"a supernet cannot run an op of the kind {op.kind!r}")
    y = _conv_bn(x, weights, "", training, op.eps, op.act, op.stride)
    return y.mean((2, 3)) if op.kind == "head" else formatted(y, x, training)


def _conv_bn(
    x: Tensor, w: Tensors, prefix: str, training: bool, eps: float, act: str = "none", stride: int = 1, groups: int = 1
) -> Tensor:
    kernel = w[f"{prefix}conv.weight"]
    y = depthwise_conv(x, kernel, stride) if groups > 1 else F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
    if training and (group := group_around()) is not None:
        return activate(batch_norm(y, w[f"{prefix}bn.weight"], w[f"{prefix}bn.bias"], eps, group), act)
    mean, var = (None, None) if training else (w[f"{prefix}bn.running_mean"], w[f"{prefix}bn.running_var"])
    y = F.batch_norm(y, mean, var, w[f"{prefix}bn.weight"], w[f"{prefix}bn.bias"], training, 0.0, eps)
    return activate(y, act)


def _mbconv(op: OpSpec, x: Tensor, w: Tensors, training: bool) -> Tensor:
    y = _conv_bn(x, w, "start.", training, op.eps, "none", op.start_stride, op.cin) if op.start else x
    y = _conv_bn(y, w, "expand.", training, op.eps, op.act) if op.expands else y
    y = _conv_bn(y, w, "depthwise.", training, op.eps, op.act, op.stride, op.mid) if op.kernel else y
    if op.se:
        inner, outer = op.gate_acts
        gate = activate(F.conv2d(y.mean((2, 3), keepdim=True), w["se.reduce.weight"], w["se.reduce.bias"]), inner)
        y = y * activate(F.conv2d(gate, w["se.expand.weight"], w["se.expand.bias"]), outer)
    y = _conv_bn(y, w, "project.", training, op.eps)
    return x + y if op.skip else y


def _classifier(op: OpSpec, x: Tensor, w: Tensors) -> Tensor:
    if op.mid:
        x = activate(F.linear(x, w["mix.weight"]), op.act)
    return F.linear(x, w["linear.weight"], w["linear.bias"])
