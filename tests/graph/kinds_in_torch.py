"""Kinds of blocks in plain torch functions, written from the papers rather than from their definitions here.

Each takes the block's input, its spec, a function that gives a weight by its name, the activation, and ``conv_bn``: a
convolution and batch norm by their common prefix.
"""

import torch
import torch.nn.functional as F


def deep_stem(x, op, weight, act, conv_bn):
    x = act(conv_bn(x, "first.", 2))
    x = x + act(conv_bn(x, "optional.")) if op.kernel else x
    return F.max_pool2d(act(conv_bn(x, "last.")), 3, 2, 1)


def pooled_stem(x, op, weight, act, conv_bn):
    return F.max_pool2d(act(conv_bn(x, "", 2)), 3, 2, 1)


def shuffle(x, op, weight, act, conv_bn):
    if op.skip:
        beside, x = x.chunk(2, 1)
    else:
        beside = act(conv_bn(conv_bn(x, "beside.depthwise.", op.stride, op.cin), "beside.project."))
    y = conv_bn(act(conv_bn(x, "reduce.")), "depthwise.", op.stride, op.mid)
    return F.channel_shuffle(torch.cat([beside, act(conv_bn(y, "project."))], 1), 2)


def plain(x, op, weight, act, conv_bn):
    return act(conv_bn(x, "project.", op.stride))


def basic(x, op, weight, act, conv_bn):
    y = conv_bn(act(conv_bn(x, "first.", op.stride)), "project.")
    return act(y + (x if op.skip else conv_bn(x, "shortcut.", op.stride)))


def bottleneck(x, op, weight, act, conv_bn):
    y = act(conv_bn(act(conv_bn(x, "reduce.")), "middle.", op.stride))
    y = conv_bn(y, "project.")
    if not op.skip:
        x = conv_bn(F.avg_pool2d(x, 2, 2, ceil_mode=True) if op.stride == 2 else x, "shortcut.")
    return act(y + x)


def fused_mbconv(x, op, weight, act, conv_bn):
    y = act(conv_bn(x, "expand.", op.stride))
    if op.se:
        gate = F.silu(conv(y.mean((2, 3), keepdim=True), weight, "se.reduce"))
        y = y * conv(gate, weight, "se.expand").sigmoid()
    return conv_bn(y, "project.") + (x if op.skip else 0)


def convnext(x, op, weight, act, conv_bn):
    y = F.conv2d(x, weight("depthwise.weight"), weight("depthwise.bias"), op.stride, op.kernel // 2, 1, op.cin)
    y = conv(act(conv(norm(y, weight, "norm"), weight, "expand")), weight, "project")
    return y + (x if op.skip else 0)


def mqa(x, op, weight, act, conv_bn):
    x = begin(x, op, conv_bn)
    bn = [weight(f"norm.bn.{part}") for part in ("running_mean", "running_var", "weight", "bias")]
    y = F.batch_norm(x, *bn, eps=op.eps)
    few = conv_bn(y, "reduce.", 2 if max(x.shape[2:]) > 8 else 1, op.cout)
    q, k, v = tokens(conv(y, weight, "query"), op), conv(few, weight, "key"), conv(few, weight, "value")
    k, v = (value.flatten(2).transpose(1, 2).unsqueeze(1).expand(-1, op.heads, -1, -1) for value in (k, v))
    return x + conv_bn(image(F.scaled_dot_product_attention(q, k, v), x), "project.")


def transformer(x, op, weight, act, conv_bn):
    x = begin(x, op, conv_bn)
    x = x + F.conv2d(x, weight("position.weight"), weight("position.bias"), 1, op.kernel // 2, 1, op.cout)
    y = norm(x, weight, "attention.norm")
    qkv = [tokens(conv(y, weight, f"attention.{name}"), op) for name in ("query", "key", "value")]
    x = x + conv(image(F.scaled_dot_product_attention(*qkv), x), weight, "attention.project")
    return x + conv(act(conv(norm(x, weight, "norm"), weight, "expand")), weight, "project")


def begin(x, op, conv_bn):
    return x if op.skip else conv_bn(conv_bn(x, "begin.depthwise.", op.stride, op.cin), "begin.")


def tokens(x, op):
    """``[N, heads · width, h, w] -> [N, heads, places, width]``."""
    return x.unflatten(1, (op.heads, op.key_width)).flatten(3).transpose(2, 3)


def image(x, like):
    return x.transpose(2, 3).flatten(1, 2).unflatten(2, like.shape[2:])


def norm(x, weight, name):
    scale, shift = weight(f"{name}.weight"), weight(f"{name}.bias")
    return F.layer_norm(x.movedim(1, -1), scale.shape, scale, shift, 1e-6).movedim(-1, 1)


def conv(x, weight, name):
    try:
        bias = weight(f"{name}.bias")
    except KeyError:
        bias = None
    return F.conv2d(x, weight(f"{name}.weight"), bias)


PUBLISHED = (deep_stem, pooled_stem, shuffle, basic, bottleneck, fused_mbconv, convnext, mqa, transformer)
KINDS = {"conv": plain, "global_pool": lambda x, *_: x.mean((2, 3)), **{kind.__name__: kind for kind in PUBLISHED}}
