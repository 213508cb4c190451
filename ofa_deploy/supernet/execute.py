"""Layers executed in torch, with given weights or with those of modules: the only torch code that knows primitives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.blocks import Block, Layer, layers
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.synchronised import batch_norm, group_around

Tensors = Mapping[str, Tensor]
Run = Callable[..., Tensor]  # (weights, training, *inputs) -> output; weights by their names in the block

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "hsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}
_IN_PLACE = {"relu": F.relu_}  # whose gradient needs no more than the output


@dataclass(frozen=True)
class Step:
    """One layer, prepared.

    Attributes:
        inputs: what it reads, by place.
        done: what no later layer reads.
        weighted: whether it has weights: then its module can run it, too.
    """

    layer: Layer
    inputs: tuple[int, ...]
    done: tuple[int, ...]
    weighted: bool
    run: Run


@lru_cache(maxsize=65536)
def steps(block: Block) -> tuple[Step, ...]:
    """A block's layers, prepared for execution."""
    found = []
    for i, layer in enumerate(block.layers):
        done = tuple(place for place in dict.fromkeys(layer.inputs) if block.readers[place][-1] == i)
        weighted = type(layer) in _WEIGHTED
        run = _WEIGHTED[type(layer)](layer) if weighted else _FUNCTIONS[type(layer)](layer, block)
        found.append(Step(layer, layer.inputs, done, weighted, run))
    return tuple(found)


def _execute(block: Block, inputs: tuple[Tensor, ...], run: Callable[[Step, list[Tensor]], Tensor]) -> Tensor:
    """Step by step; tensors are let go after their last reader."""
    values = {-1 - i: x for i, x in enumerate(inputs)}
    y = inputs[0]
    for i, step in enumerate(steps(block)):
        y = run(step, [values[place] for place in step.inputs])
        for place in step.done:
            del values[place]
        values[i] = y
    return y


def run_block(block: Block, inputs: tuple[Tensor, ...], weights: Tensors, training: bool) -> Tensor:
    """A block with the weights of ``block.weight_shapes``: what lets one set of weights serve every subnet.

    Args:
        inputs: ``[N, c, h, w]`` each, or ``[N, features]``.
        training: batch norm normalises by the batch and leaves the running statistics alone; otherwise it uses them.
    """
    return _execute(block, inputs, lambda step, read: step.run(weights, training, *read))


class BlockModule(nn.Module):
    """A block whose layers with weights are torch's own modules, under the names of ``block.weight_shapes``.

    Attributes:
        block: what it executes.
        observe: what is made of each layer's output, given the layer and the output, before others read it.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        self.observe: Callable[[Layer, Tensor], Tensor] | None = None
        for layer in block.layers:
            if (make := _MODULES.get(type(layer))) is not None:
                _place(self, layer.name, make(layer, *block.sources(layer)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """``[N, c, h, w]`` each, or ``[N, features]``, to the block's output."""
        return _execute(self.block, inputs, self._run)

    def _run(self, step: Step, read: list[Tensor]) -> Tensor:
        y = self.get_submodule(step.layer.name)(*read) if step.weighted else step.run({}, self.training, *read)
        return self.observe(step.layer, y) if self.observe else y


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Add a module under a dotted name, in containers where it needs them."""
    *outer, last = name.split(".")
    for part in outer:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


# ── layers with weights, as modules and as functions


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's ``SAME`` padding."""

    layer: layers.Conv

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_padded(self.layer, input))


def _padded(layer: layers.Conv, x: Tensor) -> Tensor:
    top, left, bottom, right = layer.pads(x.shape[1:])
    return F.pad(x, (left, right, top, bottom))


def _conv_module(layer: layers.Conv, source: tuple[int, ...]) -> nn.Module:
    padding = 0 if layer.same else layer.half
    shape = (source[0], layer.out, layer.kernel, layer.stride, padding, layer.dilation, layer.groups)
    if not layer.same:
        return nn.Conv2d(*shape, bias=layer.bias)
    module = _SameConv(*shape, bias=layer.bias)
    module.layer = layer
    return module


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of ``[N, c, h, w]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each place."""
        return _layer_norm_of(x, self.weight, self.bias, self.eps)


def _layer_norm_of(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps).permute(0, 3, 1, 2)


_MODULES: dict[type[Layer], Callable[..., nn.Module]] = {
    layers.Conv: _conv_module,
    layers.BatchNorm: lambda layer, source: nn.BatchNorm2d(source[0], eps=layer.eps),
    layers.LayerNorm: lambda layer, source: ChannelNorm(source[0], eps=layer.eps),
    layers.Linear: lambda layer, source: nn.Linear(source[-1], layer.out, bias=layer.bias),
}


def _conv(layer: layers.Conv) -> Run:
    weight, bias = f"{layer.name}.weight", f"{layer.name}.bias" if layer.bias else None
    stride, padding, dilation, groups = layer.stride, layer.half, layer.dilation, layer.groups
    if layer.same:
        return lambda w, training, x: F.conv2d(
            _padded(layer, x), w[weight], None if bias is None else w[bias], stride, 0, dilation, groups
        )
    if layer.depthwise and dilation == 1:
        return lambda w, training, x: depthwise_conv(x, w[weight], stride, None if bias is None else w[bias])
    if bias is None:
        return lambda w, training, x: F.conv2d(x, w[weight], None, stride, padding, dilation, groups)
    return lambda w, training, x: F.conv2d(x, w[weight], w[bias], stride, padding, dilation, groups)


def _batch_norm(layer: layers.BatchNorm) -> Run:
    eps = layer.eps
    scale, shift, mean, var = (f"{layer.name}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))

    def run(w: Tensors, training: bool, x: Tensor) -> Tensor:
        if not training:
            return F.batch_norm(x, w[mean], w[var], w[scale], w[shift], False, 0.0, eps)
        if (group := group_around()) is not None:
            return batch_norm(x, w[scale], w[shift], eps, group)
        return F.batch_norm(x, None, None, w[scale], w[shift], True, 0.0, eps)

    return run


def _linear(layer: layers.Linear) -> Run:
    weight, bias = f"{layer.name}.weight", f"{layer.name}.bias" if layer.bias else None
    return lambda w, training, x: F.linear(x, w[weight], None if bias is None else w[bias])


def _layer_norm(layer: layers.LayerNorm) -> Run:
    scale, shift, eps = f"{layer.name}.weight", f"{layer.name}.bias", layer.eps
    return lambda w, training, x: _layer_norm_of(x, w[scale], w[shift], eps)


_WEIGHTED: dict[type[Layer], Callable[..., Run]] = {
    layers.Conv: _conv,
    layers.BatchNorm: _batch_norm,
    layers.LayerNorm: _layer_norm,
    layers.Linear: _linear,
}


# ── layers without weights


def _activation(layer: layers.Activation, block: Block) -> Run:
    # in place only where nobody else reads the tensor: a block's input may have other readers
    alone = layer.inputs[0] >= 0 and len(block.readers[layer.inputs[0]]) == 1
    function = (_IN_PLACE if alone else {}).get(layer.function) or _ACTIVATIONS[layer.function]
    return lambda w, training, x: function(x)


def _pool(layer: layers.Pool, block: Block) -> Run:
    even = layer.kernel % 2 == 0
    window = (layer.kernel, layer.stride, 0 if even else layer.kernel // 2)
    if layer.how == "max":
        return lambda w, training, x: F.max_pool2d(x, *window, ceil_mode=even)
    return lambda w, training, x: F.avg_pool2d(x, *window, ceil_mode=even, count_include_pad=False)


def _matmul(layer: layers.MatMul, block: Block) -> Run:
    scale = layer.scale
    return lambda w, training, x, y: torch.matmul(x if scale == 1 else x * scale, y)


def _permute(layer: layers.Permute, block: Block) -> Run:
    order = (0, *(1 + place for place in layer.order))
    return lambda w, training, x: x.permute(order)


def _layout(w: Tensors, training: bool, x: Tensor, images: Tensor) -> Tensor:
    """Channels last in training. Otherwise the images' format, or channels last where a single channel leaves it open:
    so logits equal other implementations' to the bit."""
    last = training or images.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last) if last else x


_FUNCTIONS: dict[type[Layer], Callable[..., Run]] = {
    layers.Activation: _activation,
    layers.Add: lambda layer, block: lambda w, training, x, y: x + y,
    layers.Multiply: lambda layer, block: lambda w, training, x, y: x * y,
    layers.Concat: lambda layer, block: lambda w, training, *parts: torch.cat(parts, 1),
    layers.Pool: _pool,
    layers.GlobalPool: lambda layer, block: lambda w, training, x: x.mean((2, 3), keepdim=True),
    layers.Flatten: lambda layer, block: lambda w, training, x: x.flatten(1),
    layers.MatMul: _matmul,
    layers.Permute: _permute,
    layers.Reshape: lambda layer, block: lambda w, training, x: x.reshape(len(x), *layer.to),
    layers.Softmax: lambda layer, block: lambda w, training, x: x.softmax(-1),
    layers.Shift: lambda layer, block: lambda w, training, x: x[:, :, 1:, 1:],
    layers.Slice: lambda layer, block: lambda w, training, x: x[:, layer.first : layer.end],
    layers.Layout: lambda layer, block: _layout,
}


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights of a model's blocks anew from one seed: He-normal convolutions, a small last layer, identity
    batch norm.

    Convolutions marked as such begin as the identity: subnets with and without one then start from nearly the same
    function, and disturb each other less in the weights that they share.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, BlockModule):
            _initialise_linear(module, generator)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
    for block in model.modules():
        for layer in block.block.layers if isinstance(block, BlockModule) else ():
            if isinstance(layer, layers.Conv) and layer.identity:
                conv = block.get_submodule(layer.name)
                nn.init.dirac_(conv.weight, conv.groups)  # type: ignore[arg-type]


def _initialise_linear(module: BlockModule, generator: torch.Generator) -> None:
    """Last layer first: that is the order in which a seed has always drawn a classifier."""
    for layer in reversed(module.block.layers):
        if not isinstance(layer, layers.Linear):
            continue
        weight: Tensor = module.get_parameter(f"{layer.name}.weight")
        if layer.small:
            nn.init.normal_(weight, 0.0, 0.01, generator=generator)
        else:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
