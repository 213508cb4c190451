"""One subnet of a chain of stages: what it chose, and how that is checked and brought to one form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ofa_deploy.blocks.kinds import Kernel, stage_kind
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.space.family import ArchLike

if TYPE_CHECKING:
    from ofa_deploy.space.search_space import SearchSpace

RESOLUTION_RANGE = (16, 1024)


@dataclass(frozen=True)
class ChainArch:
    """A genotype: one subnet of a space. Build it through ``SearchSpace.canonical`` so that equal networks are equal.

    Attributes:
        resolution: input height and width in pixels.
        width: channel multiplier.
        depths: blocks per stage.
        kernels, expands: one per block slot, ``max(stage.depths)`` slots a stage; slots beyond a stage's depth hold
            the slot's first choice.
        channels: one per stage, its output channels at width multiplier 1.0; empty where no stage has a choice.
        kinds: one per block slot, its kind; empty where no stage has a choice.
    """

    space: str
    resolution: int
    width: float
    depths: tuple[int, ...]
    kernels: tuple[Kernel, ...]
    expands: tuple[float, ...]
    channels: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical JSON."""
        # a ratio read from YAML may be 4.0 where a preset says 4: the same subnet
        numbers = {"width": float(self.width), "expands": [float(expand) for expand in self.expands]}
        return hashlib.sha256(json.dumps({**self.to_json(), **numbers}, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, JSON]:
        """The subnet as a JSON object; ``channels`` and ``kinds`` are there only where stages have a choice of them."""
        return {k: _as_lists(v) for k, v in asdict(self).items() if k not in ("channels", "kinds") or v}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


def checked(space: SearchSpace, arch: ArchLike) -> ChainArch:
    """See ``SearchSpace.canonical``."""
    data: dict[str, Any] = dict(arch if isinstance(arch, Mapping) else arch.to_json())
    if data.setdefault("space", space.name) != space.name:
        raise UsageError(f"the arch belongs to space {data['space']!r}, not to {space.name!r}")
    data.setdefault("width", space.widths[0] if len(space.widths) == 1 else None)
    data.setdefault("channels", [stage.width for stage in space.stages if space.elastic_stages])
    data.setdefault("kinds", [space.stages[s].block for s, _ in space.slots if space.mixed_slots])
    unknown = set(data) - set(ChainArch.__dataclass_fields__)
    missing = set(ChainArch.__dataclass_fields__) - set(data)
    if unknown or missing:
        raise UsageError(f"arch of {space.name}: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
    low, high = RESOLUTION_RANGE
    if not isinstance(data["resolution"], int) or not low <= data["resolution"] <= high:
        raise UsageError(f"arch of {space.name}: resolution {data['resolution']!r} is not from {low} to {high}")
    _member(space, "width", data["width"], space.widths)
    lengths = {
        "depths": len(space.stages),
        "kernels": len(space.slots),
        "expands": len(space.slots),
        "channels": len(space.stages) if space.elastic_stages else 0,
        "kinds": len(space.slots) if space.mixed_slots else 0,
    }
    for name, length in lengths.items():
        if not isinstance(data[name], (list, tuple)) or len(data[name]) != length:
            raise UsageError(f"arch of {space.name}: {name} needs a list of {length} values")
    for i, channels in enumerate(data["channels"]):
        _member(space, f"channels[{i}]", channels, space.stages[i].all_widths)
    kernels = [tuple(kernel) if isinstance(kernel, list) else kernel for kernel in data["kernels"]]
    expands, kinds = list(data["expands"]), list(data["kinds"])
    for i, stage in enumerate(space.stages):
        _member(space, f"depths[{i}]", data["depths"][i], stage.depths)
    for i, (s, b) in enumerate(space.slots):
        stage = space.stages[s]
        if b >= data["depths"][s]:
            kernels[i], expands[i] = space.kernels(i)[0], stage.expands[0]
            if kinds:
                kinds[i] = stage.all_kinds[0]
        if kinds:
            _member(space, f"kinds[{i}]", kinds[i], stage.all_kinds)
            if stage.kinds and not stage_kind(kinds[i]).expands:
                expands[i] = stage.expands[0]  # it means nothing
        _member(space, f"kernels[{i}]", kernels[i], space.kernels(i))
        _member(space, f"expands[{i}]", expands[i], stage.expands)
    blocks = (tuple(data["depths"]), tuple(kernels), tuple(expands), tuple(data["channels"]), tuple(kinds))
    return ChainArch(space.name, data["resolution"], float(data["width"]), *blocks)


def _member(space: SearchSpace, field: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        shown, known = _as_lists(value), _as_lists(choices)
        raise UsageError(f"arch of {space.name}: {field} is {shown!r}; the space has {known}")
