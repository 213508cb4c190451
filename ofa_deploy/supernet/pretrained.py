"""Networks that others trained and published become supernets of one subnet: the same weights under other names.

Torchvision's EfficientNets and MobileNetV2 (its ``models``), and the EfficientNets and Lites of the packages
``efficientnet-pytorch`` and ``efficientnet-lite-pytorch``, whose weights come from TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ofa_deploy.blocks import OpSpec, network_shapes
from ofa_deploy.errors import UsageError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet.checkpoint import Header
from ofa_deploy.supernet.once_for_all import check_finite, check_shapes, read_tensor_file, source_of
from ofa_deploy.supernet.supernet import Supernet

NORM = ("weight", "bias", "running_mean", "running_var")
TENSORFLOW_EPS = 1e-3  # of batch norm
LITE = {
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
}  # by which the Lites' images are normalised; others as ImageNet
Names = dict[str, str]


def import_torchvision(path: Path, space: SearchSpace) -> tuple[Supernet, Header]:
    """Read a state of one of torchvision's EfficientNets or of its MobileNetV2.

    Args:
        path: a torch or safetensors file that holds the state, or a dict with it as ``state_dict``.
        space: ``efficientnet_b0`` to ``efficientnet_b7``, ``mobilenet_v2``, or another space of one subnet with such
            blocks; only the number of classes may differ from the file's, which is then asked for by name.

    Returns:
        The network as a supernet of one subnet, in evaluation mode, and what its file should say of where it comes
        from.

    Raises:
        UsageError: the file is missing, damaged or of another kind; keys are missing, unknown, misshapen or not finite;
            or the space has no torchvision counterpart.
    """
    return _read(path, space, torchvision_names(space), "torchvision")


def import_efficientnet_pytorch(path: Path, space: SearchSpace) -> tuple[Supernet, Header]:
    """Read a state of a network of the packages ``efficientnet-pytorch`` and ``efficientnet-lite-pytorch``.

    Args:
        path: a torch or safetensors file that holds the state, or a dict with it as ``state_dict``.
        space: ``efficientnet_lite0`` to ``efficientnet_lite4``, or another space of one subnet with such blocks and
            with TensorFlow's padding.

    Returns:
        As ``import_torchvision``; a Lite's file also says how images are normalised.

    Raises:
        UsageError: as ``import_torchvision``.
    """
    supernet, summary = _read(path, space, efficientnet_pytorch_names(space), "efficientnet-pytorch")
    if not any(stage.se for stage in space.stages):
        summary["source"] |= LITE
    return supernet, summary


def _read(path: Path, space: SearchSpace, names: Names, whose: str) -> tuple[Supernet, Header]:
    shapes = network_shapes(space.network(space.largest))
    state = {key: value for key, value in read_tensor_file(path).items() if not key.endswith("num_batches_tracked")}
    check_shapes(path, state, {theirs: shapes[ours] for ours, theirs in names.items()})
    check_finite(path, state)
    supernet = Supernet(space)
    supernet.load_state_dict({ours: state[theirs].float() for ours, theirs in names.items()}, strict=False)
    return supernet.eval(), {"source": source_of(path, f"{whose}'s weights of {space.name}")}


def torchvision_names(space: SearchSpace) -> Names:
    """Torchvision's name for every weight of a space's only subnet.

    Raises:
        UsageError: the space has choices, or layers or a padding that these networks do not have.
    """
    mobile = all(stage.act == "relu6" for stage in space.stages)
    blocks = ("features.{number}.conv", _mobilenet_block) if mobile else ("features.{stage}.block", _efficientnet_block)
    head = len(space.slots if mobile else space.stages) + 1
    names = _conv_bn("stem", "features.0.{}") | _blocks(space, *blocks) | _conv_bn("head", f"features.{head}.{{}}")
    names |= {f"classifier.linear.{leaf}": f"classifier.1.{leaf}" for leaf in ("weight", "bias")}
    if space.same_padding or not _complete(space, names):
        raise UsageError(
            f"{space.name} is none of torchvision's: give mobilenet_v2, or efficientnet_b0 to efficientnet_b7"
        )
    return names


def efficientnet_pytorch_names(space: SearchSpace) -> Names:
    """The name in ``efficientnet-pytorch`` for every weight of a space's only subnet.

    Raises:
        UsageError: the space has choices, or layers, a padding or a batch norm that these networks do not have.
    """
    names = _conv_bn("stem", "_conv_stem", "_bn0") | _blocks(space, "_blocks.{index}", _tensorflow_block)
    names |= _conv_bn("head", "_conv_head", "_bn1")
    names |= {f"classifier.linear.{leaf}": f"_fc.{leaf}" for leaf in ("weight", "bias")}
    if not space.same_padding or space.bn_eps != TENSORFLOW_EPS or not _complete(space, names):
        raise UsageError(
            f"{space.name} is none of efficientnet-pytorch's: give efficientnet_lite0 to efficientnet_lite4, or one "
            f"with same_padding: true and bn_eps: {TENSORFLOW_EPS}"
        )
    return names


def _complete(space: SearchSpace, names: Names) -> bool:
    """Whether these are all weights of a space's only subnet."""
    return space.largest == space.smallest and names.keys() == network_shapes(space.network(space.largest)).keys()


def _blocks(space: SearchSpace, called: str, inside: Callable[[str, str, OpSpec], Names]) -> Names:
    """Names of the stages' blocks: what a block is ``called``; from our name, theirs and the block, its weights'."""
    network = space.network(space.largest)
    ops, names = dict(zip(network.names, network.ops, strict=True)), Names()
    for i, (stage, position) in enumerate(space.slots):
        ours = f"s{stage}b{position}"
        theirs = called.format(index=i, number=i + 1, stage=f"{stage + 1}.{position}")
        names |= inside(ours, theirs, ops[ours])
    return names


def _efficientnet_block(ours: str, theirs: str, op: OpSpec) -> Names:
    """Layers are numbered in the order of execution, without those that are not there."""
    names = Names()
    for i, layer in enumerate(_layers(op)):
        if layer == "se":
            names |= _squeeze_excitation(ours, f"{theirs}.{i}.fc1", f"{theirs}.{i}.fc2")
        else:
            names |= _conv_bn(f"{ours}.{layer}", f"{theirs}.{i}.{{}}")
    return names


def _mobilenet_block(ours: str, theirs: str, op: OpSpec) -> Names:
    """Likewise, but the last convolution and its batch norm are numbered as two."""
    *layers, project = _layers(op)
    names = _conv_bn(f"{ours}.{project}", f"{theirs}.{len(layers)}", f"{theirs}.{len(layers) + 1}")
    for i, layer in enumerate(layers):
        names |= _conv_bn(f"{ours}.{layer}", f"{theirs}.{i}.{{}}")
    return names


def _tensorflow_block(ours: str, theirs: str, op: OpSpec) -> Names:
    norms, names = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}, Names()
    for layer in _layers(op):
        if layer == "se":
            names |= _squeeze_excitation(ours, f"{theirs}._se_reduce", f"{theirs}._se_expand")
        else:
            names |= _conv_bn(f"{ours}.{layer}", f"{theirs}._{layer}_conv", f"{theirs}.{norms[layer]}")
    return names


def _layers(op: OpSpec) -> list[str]:
    """The parts of a block that are there, in the order of execution."""
    there = {"expand": op.mid != op.cin, "depthwise": True, "se": op.se > 0, "project": True}
    return [layer for layer, is_there in there.items() if is_there]


def _squeeze_excitation(ours: str, reduce: str, expand: str) -> Names:
    parts = (("reduce", reduce), ("expand", expand))
    return {f"{ours}.se.{part}.{leaf}": f"{theirs}.{leaf}" for part, theirs in parts for leaf in ("weight", "bias")}


def _conv_bn(ours: str, conv: str, norm: str = "") -> Names:
    """A convolution and its batch norm; with ``norm`` left out, ``conv`` has a place for 0 and 1."""
    conv, norm = (conv, norm) if norm else (conv.format(0), conv.format(1))
    return {f"{ours}.conv.weight": f"{conv}.weight"} | {f"{ours}.bn.{part}": f"{norm}.{part}" for part in NORM}
