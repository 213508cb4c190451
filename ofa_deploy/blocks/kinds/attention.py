"""Blocks of attention between the places of an image.

An image is a row of tokens, one a place; 1×1 convolutions are their linear layers. Attention inside of one knows no
order, so each block has a depthwise convolution, too, which also lets it stride.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa_deploy.blocks.block import INPUT, Builder, Value
from ofa_deploy.blocks.kinds.kind import Kernel, StageKind
from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec

KEY_WIDTH = 16  # channels of a head: those of the smallest LeViT (Graham et al., ICCV 2021), as stages here are narrow
FEW_PLACES = 8  # up to this side, keys and values stay at every place: there are no more than 64


def attend(b: Builder, q: Value, k: Value, v: Value, op: OpSpec, shared: bool, places: tuple[int, int]) -> Value:
    """Scaled dot-product attention (Vaswani et al., NeurIPS 2017, §3.2).

    Args:
        q: queries, an image of ``heads · key_width`` channels, one head after the other.
        k, v: keys and values, likewise; of one head where it is ``shared`` by all of the queries'.
        places: number of the queries' and of the keys'.

    Returns:
        ``[heads · key_width, queries]``.
    """
    heads, width = op.heads, op.key_width
    queries, keys = places
    own = 1 if shared else heads
    q = b.permute(b.reshape(q, (heads, width, queries), "queries"), (0, 2, 1), "queries.turned")
    if shared and heads > 1:  # all heads are one matrix product
        q = b.reshape(q, (1, heads * queries, width), "queries.joined")
    k = b.reshape(k, (own, width, keys), "keys")
    v = b.permute(b.reshape(v, (own, width, keys), "values"), (0, 2, 1), "values.turned")
    x = b.matmul(b.softmax(b.matmul(q, k, "scores", width**-0.5), "shares"), v, "mixed")
    if shared and heads > 1:
        x = b.reshape(x, (heads, queries, width), "heads")
    return b.permute(x, (0, 2, 1), "heads.turned")


class _Attention(StageKind):
    """What both kinds have: heads, and a beginning that brings an image to the block's shape."""

    projects = attends = multiplies_output = True

    def meant(self, heads: bool) -> tuple[str, ...]:
        return ("kernels", "expands", "heads", "key_widths")

    def begin(self, b: Builder, op: OpSpec) -> Value:
        """The block's tokens: its input, or where shapes differ what a depthwise convolution, which strides, and a 1×1
        convolution make of it."""
        if op.skip:
            return INPUT
        x = b.conv_bn(INPUT, "begin.depthwise.", op.cin, op.kernel, op.stride, op.cin, elastic=True)
        return b.conv_bn(x, "begin.", op.cout)

    def check(self, op: OpSpec) -> None:
        super().check(op)
        if op.heads < 1 or op.key_width < 1:
            raise UsageError(f"{op.kind} needs heads and a key_width of at least 1, not {op.heads} and {op.key_width}")


class MobileAttention(_Attention):
    """Mobile multi-query attention: batch norm, queries of several heads against one head of keys and values, whose
    places a depthwise convolution of stride 2 reduces, projection, skip connection (MobileNetV4, Qin et al. 2024, §4).

    The expand ratio multiplies the output channels and gives those of the queries, and so the number of heads; where
    heads are a choice, it means nothing. Keys and values are reduced in images of more than 8×8 places.
    """

    name = "mqa"

    def meant(self, heads: bool) -> tuple[str, ...]:
        return ("kernels", "heads", "key_widths") if heads else ("kernels", "expands")

    def head_axes(self, op: OpSpec) -> dict[str, int]:
        return {"query.weight": 0, "project.conv.weight": 1}

    def fields(
        self, cin: int, cout: int, stride: int, kernel: Kernel, expand: float, key_width: int = 0, heads: int = 0
    ) -> dict[str, Any]:
        found, width = super().fields(cin, cout, stride, kernel, expand), key_width or KEY_WIDTH
        heads = heads or max(1, round(found["mid"] / width))
        return found | {"mid": heads * width, "heads": heads, "key_width": width}

    def build(self, b: Builder, op: OpSpec) -> None:
        start = self.begin(b, op)
        h, w = ((side - 1) // op.stride + 1 for side in (op.h, op.w))
        x = b.batch_norm(start, "norm.bn")
        q = b.conv(x, "query", op.heads * op.key_width)
        reduced = 2 if max(h, w) > FEW_PLACES else 1
        near = b.conv_bn(x, "reduce.", op.cout, op.kernel, reduced, op.cout, elastic=True)
        k, v = b.conv(near, "key", op.key_width), b.conv(near, "value", op.key_width)
        keys = ((h - 1) // reduced + 1) * ((w - 1) // reduced + 1)
        x = attend(b, q, k, v, op, True, (h * w, keys))
        x = b.reshape(x, (op.heads * op.key_width, h, w), "image")
        b.add(start, b.conv_bn(x, "project.", op.cout), "skip")


class Transformer(_Attention):
    """Positions by a depthwise convolution (Chu et al., ICLR 2023), multi-head attention, and a feed-forward
    network of two 1×1 convolutions, each with a skip connection, the last two behind a layer norm (ViT, Dosovitskiy et
    al., ICLR 2021, §3.1).

    The expand ratio multiplies the output channels and gives those inside of the feed-forward network; 4 is ViT's.
    There is a head for every ``key_width`` channels of the output, where heads are no choice.
    """

    name = "transformer"

    def fields(
        self, cin: int, cout: int, stride: int, kernel: Kernel, expand: float, key_width: int = 0, heads: int = 0
    ) -> dict[str, Any]:
        found, width = super().fields(cin, cout, stride, kernel, expand), key_width or KEY_WIDTH
        return found | {"heads": heads or max(1, round(cout / width)), "key_width": width}

    def head_axes(self, op: OpSpec) -> dict[str, int]:
        of_one = [f"attention.{name}.{part}" for name in ("query", "key", "value") for part in ("weight", "bias")]
        return {**dict.fromkeys(of_one, 0), "attention.project.weight": 1}

    def build(self, b: Builder, op: OpSpec) -> None:
        x = self.begin(b, op)
        h, w = ((side - 1) // op.stride + 1 for side in (op.h, op.w))
        inner = op.heads * op.key_width
        x = b.add(x, b.conv(x, "position", op.cout, op.kernel, groups=op.cout, bias=True, elastic=True), "placed")
        y = b.layer_norm(x, "attention.norm")
        q, k, v = (b.conv(y, f"attention.{name}", inner, bias=True) for name in ("query", "key", "value"))
        y = b.reshape(attend(b, q, k, v, op, False, (h * w, h * w)), (inner, h, w), "image")
        x = b.add(x, b.conv(y, "attention.project", op.cout, bias=True), "attended")
        y = b.conv(b.layer_norm(x, "norm"), "expand", op.mid, bias=True)
        b.add(x, b.conv(b.activation(y, "act", op.act), "project", op.cout, bias=True), "skip")


KINDS = (MobileAttention(), Transformer())
