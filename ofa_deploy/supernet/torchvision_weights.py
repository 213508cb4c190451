"""EfficientNets as torchvision publishes them (its ``models.efficientnet``): the same weights under other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofa_deploy.blocks import OpSpec, network_shapes
from ofa_deploy.errors import UsageError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet.published import check_finite, check_shapes, read_tensor_file, source_of
from ofa_deploy.supernet.supernet import Supernet

NORM = ("weight", "bias", "running_mean", "running_var")


def import_torchvision(path: Path, space: SearchSpace) -> tuple[Supernet, dict[str, Any]]:
    """Read a state of one of torchvision's EfficientNets.

    Args:
        path: a torch or safetensors file that holds the state, or a dict with it as ``state_dict``.
        space: ``efficientnet_b0`` to ``efficientnet_b7``, or another space of one subnet with such blocks; only the
            number of classes may differ from the file's, which is then asked for by name.

    Returns:
        The network as a supernet of one subnet, in evaluation mode, and what its file should say of where it comes
        from.

    Raises:
        UsageError: the file is missing, damaged or of another kind; keys are missing, unknown, misshapen or not finite;
            or the space has no torchvision counterpart.
    """
    names = torchvision_names(space)
    shapes = network_shapes(space.network(space.largest))
    state = {key: value for key, value in read_tensor_file(path).items() if not key.endswith("num_batches_tracked")}
    check_shapes(path, state, {theirs: shapes[ours] for ours, theirs in names.items()})
    check_finite(path, state)
    supernet = Supernet(space)
    supernet.load_state_dict({ours: state[theirs].float() for ours, theirs in names.items()}, strict=False)
    return supernet.eval(), {"source": source_of(path, f"torchvision's weights of {space.name}")}


def torchvision_names(space: SearchSpace) -> dict[str, str]:
    """Torchvision's name for every weight of a space's only subnet.

    Raises:
        UsageError: the space has choices, or layers that torchvision's EfficientNets do not have.
    """
    if space.largest != space.smallest or space.first_block or space.feature_width:
        raise UsageError(
            f"{space.name} is none of torchvision's EfficientNets: give efficientnet_b0 to efficientnet_b7"
        )
    network = space.network(space.largest)
    names = {"classifier.linear.weight": "classifier.1.weight", "classifier.linear.bias": "classifier.1.bias"}
    names |= _conv_bn("stem", "features.0") | _conv_bn("head", f"features.{len(space.stages) + 1}")
    blocks = list(zip(network.names, network.ops, strict=True))[1:-2]  # between the stem, and head and classifier
    for (stage, position), (name, op) in zip(space.slots, blocks, strict=True):
        names |= _block(name, f"features.{stage + 1}.{position}.block", op)
    return names


def _block(ours: str, theirs: str, op: OpSpec) -> dict[str, str]:
    """Layers are numbered in the order of execution, without those that are not there."""
    layers = [layer for layer, there in (("expand", op.mid != op.cin), ("depthwise", True), ("se", op.se)) if there]
    names: dict[str, str] = {}
    for i, layer in enumerate([*layers, "project"]):
        if layer == "se":
            for part, fc in (("reduce", "fc1"), ("expand", "fc2")):
                names |= {f"{ours}.se.{part}.{leaf}": f"{theirs}.{i}.{fc}.{leaf}" for leaf in ("weight", "bias")}
        else:
            names |= _conv_bn(f"{ours}.{layer}", f"{theirs}.{i}")
    return names


def _conv_bn(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.conv.weight": f"{theirs}.0.weight"} | {f"{ours}.bn.{part}": f"{theirs}.1.{part}" for part in NORM}
