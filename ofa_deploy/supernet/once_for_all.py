"""Supernets that once-for-all published (Cai et al., ICLR 2020): its MobileNetV3 and ProxylessNAS checkpoints become
ours.

Both have the same weights in other names. Once-for-all's changed over the years: a block's layers were below
``mobile_inverted_conv`` and are now below ``conv``, and an elastic layer that holds a plain one says its name twice
(``bn.bn``, ``conv.conv``, ``linear.linear``). Every spelling is read, also mixed; after that no key may be missing,
left over, or of another shape.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ofa_deploy.errors import UsageError
from ofa_deploy.space import PRESETS, SearchSpace
from ofa_deploy.supernet.checkpoint import Header
from ofa_deploy.supernet.supernet import Supernet

LISTED = 6  # of the keys that are wrong, in the message
OUTSIDE = {"stem": "first_conv", "classifier.linear": "classifier.linear"}
HEAD = {True: "final_expand_layer", False: "feature_mix_layer"}  # by whether another layer follows it
MIX = ("classifier.mix.weight", "feature_mix_layer.conv.weight")  # a matrix here, a 1×1 convolution there
INSIDE = {  # of every kind of block
    "mbconv": {
        "expand": "inverted_bottleneck",
        "depthwise": "depth_conv",
        "se.reduce": "depth_conv.se.fc.reduce",
        "se.expand": "depth_conv.se.fc.expand",
        "project": "point_linear",
    },
    "deep_stem": {
        "first": "input_stem.0",
        "optional.conv": "input_stem.1.conv",  # in a residual block's ``conv``, and each part said once
        "optional.bn": "input_stem.1.conv.bn",
        "last": "input_stem.2",
    },
    "bottleneck": {"reduce": "conv1", "middle": "conv2", "project": "conv3", "shortcut": "downsample"},
}
Shapes = dict[str, tuple[int, ...]]


def import_checkpoint(path: Path, space: SearchSpace) -> tuple[Supernet, Header]:
    """Read a checkpoint of one of once-for-all's supernets.

    Args:
        path: a torch file that holds the state, or a dict with it as ``state_dict``.
        space: whose supernet it is; only the number of classes is taken from the file.

    Returns:
        The supernet, in evaluation mode, and what its file should say of where it comes from. Batch norm has the
        published statistics, of which a subnet takes the leading part, as once-for-all's own extracted subnets do.

    Raises:
        UsageError: the file is missing, damaged or of another kind; keys are missing, unknown, misshapen or not finite;
            or it is a supernet of another space.
    """
    state = _plainly_spelt(path, read_tensor_file(path))
    classes = state.get("classifier.linear.bias", torch.empty(0))
    if classes.ndim == 1 and len(classes):
        space = replace(space, num_classes=len(classes))
    expected = _shapes(space)
    _refuse_other_space(path, state, space, expected)
    check_shapes(path, state, expected)
    check_finite(path, state)
    supernet = Supernet(space)
    ours = {name: state[theirs].float() for name, theirs in _names(space).items()}
    if MIX[0] in ours:
        ours[MIX[0]] = ours[MIX[0]].flatten(1)
    supernet.load_state_dict(ours, strict=False)
    return supernet.eval(), {"source": source_of(path, f"once-for-all's supernet {space.name}")}


def source_of(path: Path, what: str) -> dict[str, str]:
    """What is kept of an imported file: its kind, its name and its content's sha256."""
    return {"what": what, "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """The named tensors of a torch file, or of a ``.safetensors`` one, without running anything that it may hold.

    Raises:
        UsageError: the file is missing, damaged, or holds anything but a state.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    kind = "safetensors" if path.suffix == ".safetensors" else "torch"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load_file(path) if kind != "torch" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle raises whatever it likes
        reason = str(error).strip().partition("\n")[0][:120]
        raise UsageError(
            f"{path} is no {kind} file of plain tensors, or it is damaged ({type(error).__name__}: {reason}); "
            "nothing of it was run; download it again"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(map(_is_weight, state, state.values())):
        raise UsageError(f"{path} holds no state of a network: a dict of names and tensors, or one as its state_dict")
    return dict(state)


def check_shapes(path: Path, state: Mapping[str, Tensor], expected: Shapes) -> None:
    """Compare a state with what is expected.

    Raises:
        UsageError: lists the first keys that are missing, unknown or misshapen, and counts them.
    """
    wrong = [f"missing {name}" for name in expected if name not in state]
    wrong += [f"unknown {name}" for name in state if name not in expected]
    wrong += [
        f"{name} is {list(state[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise UsageError(
            f"{path} is another network's, or damaged: {len(wrong)} keys: {'; '.join(wrong[:LISTED])}{more}"
        )


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity.

    Raises:
        UsageError: names the first key that has them.
    """
    for name, value in state.items():
        if not value.isfinite().all():
            raise UsageError(f"{path}: {name} has values that are not finite; download it again")


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided


def _plainly_spelt(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with each key in its shortest spelling, without the counters of batches."""
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        short = re.sub(r"\.(bn|conv|linear)(\.\1)+\.", r".\1.", key.replace(".mobile_inverted_conv.", ".conv."))
        if short in plain:
            raise UsageError(f"{path} has {short} twice, in two spellings; it is damaged")
        plain[short] = value
    return plain


def _refuse_other_space(path: Path, state: Mapping[str, Tensor], space: SearchSpace, expected: Shapes) -> None:
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found == expected:
        return
    published = (other for name, other in PRESETS.items() if name.startswith("ofa_"))
    for other in published:
        if _shapes(replace(other, num_classes=space.num_classes)) == found:
            raise UsageError(f"{path} is a supernet of {other.name}, not of {space.name}; give --space {other.name}")


def _shapes(space: SearchSpace) -> Shapes:
    """The shape of every weight of a space's supernet, by once-for-all's names."""
    state = _state(space)
    shapes = {theirs: tuple(state[ours].shape) for ours, theirs in _names(space).items()}
    if MIX[0] in state:
        shapes[MIX[1]] += (1, 1)
    return shapes


def _names(space: SearchSpace) -> dict[str, str]:
    """Once-for-all's name, shortly spelt, for every weight of a space's supernet."""
    layers = _layers(space)
    return {name: _theirs(name, layers) for name in _state(space) if not name.endswith("num_batches_tracked")}


def _layers(space: SearchSpace) -> dict[str, str]:
    """Once-for-all's name for every layer of a space's supernet."""
    found = OUTSIDE | {"head": HEAD[space.feature_width > 0]}
    kinds = {f"s{s}b{b}": space.stages[s].block for s, b in space.slots}
    if space.first_block:
        kinds = {"first": "mbconv"} | kinds
    blocks = 0
    for block, kind in kinds.items():
        parts, place = INSIDE.get(kind, {}), ""
        if kind != "deep_stem":
            place, blocks = f"blocks.{blocks}.{'conv.' if kind == 'mbconv' else ''}", blocks + 1
        found |= {f"{block}.{ours}": f"{place}{theirs}" for ours, theirs in parts.items()}
    return found


def _state(space: SearchSpace) -> dict[str, Tensor]:
    with torch.device("meta"):  # names and shapes, but no memory
        return Supernet(space).state_dict()


def _theirs(name: str, layers: Mapping[str, str]) -> str:
    """Once-for-all's name for one of ours; a layer that it does not have keeps ours, which no file of it has."""
    if name == MIX[0]:
        return MIX[1]
    layer = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
    if layer is None:
        return name
    leaf = re.sub(r"^transform_(\d+to\d+)$", r"conv.\1_matrix", name.removeprefix(f"{layer}."))
    return f"{layers[layer]}.{leaf}"
