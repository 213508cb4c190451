"""One subnet of a chain of stages: what it chose, and how that is checked and brought to one form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ofa_deploy.blocks.kinds import Kernel
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.space.family import ArchLike

if TYPE_CHECKING:
    from ofa_deploy.space.search_space import SearchSpace

RESOLUTION_RANGE = (16, 1024)
BLOCK_FIELDS = ("kernels", "expands", "heads", "key_widths")  # one value a slot
OPTIONAL = ("channels", "kinds", "heads", "key_widths")


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
        kinds: one per stage, the kind of its blocks; empty where no stage has a choice.
        heads, key_widths: one per block slot, the heads of its attention and their width; 0 in stages without a choice,
            empty where no stage has one.
    """

    space: str
    resolution: int
    width: float
    depths: tuple[int, ...]
    kernels: tuple[Kernel, ...]
    expands: tuple[float, ...]
    channels: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    key_widths: tuple[int, ...] = ()

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical JSON."""
        # a ratio read from YAML may be 4.0 where a preset says 4: the same subnet
        numbers = {"width": float(self.width), "expands": [float(expand) for expand in self.expands]}
        return hashlib.sha256(json.dumps({**self.to_json(), **numbers}, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, JSON]:
        """The subnet as a JSON object; what only some spaces have is there only where stages have a choice of it."""
        return {name: _as_lists(value) for name, value in asdict(self).items() if value or name not in OPTIONAL}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


def checked(space: SearchSpace, arch: ArchLike) -> ChainArch:
    """See ``SearchSpace.canonical``."""
    data: dict[str, Any] = dict(arch if isinstance(arch, Mapping) else arch.to_json())
    if data.setdefault("space", space.name) != space.name:
        raise UsageError(f"the arch belongs to space {data['space']!r}, not to {space.name!r}")
    data.setdefault("width", space.widths[0] if len(space.widths) == 1 else None)
    mixed = any(stage.kinds for stage in space.stages)
    data.setdefault("channels", [stage.width for stage in space.stages if space.elastic_stages])
    data.setdefault("kinds", [stage.block for stage in space.stages if mixed])
    of_slots = [space.stages[s] for s, _ in space.slots]
    for name in ("heads", "key_widths"):
        wide = [max(getattr(stage, name), default=0) for stage in of_slots]
        data.setdefault(name, wide if any(wide) else [])
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
        "kinds": len(space.stages) if mixed else 0,
        "heads": len(space.slots) if any(stage.heads for stage in of_slots) else 0,
        "key_widths": len(space.slots) if any(stage.key_widths for stage in of_slots) else 0,
    }
    for name, length in lengths.items():
        if not isinstance(data[name], (list, tuple)) or len(data[name]) != length:
            raise UsageError(f"arch of {space.name}: {name} needs a list of {length} values")
    for i, channels in enumerate(data["channels"]):
        _member(space, f"channels[{i}]", channels, space.stages[i].all_widths)
    for i, stage in enumerate(space.stages):
        _member(space, f"depths[{i}]", data["depths"][i], stage.depths)
        if mixed:
            _member(space, f"kinds[{i}]", data["kinds"][i], stage.all_kinds)
    blocks = {name: list(data[name]) for name in BLOCK_FIELDS}
    blocks["kernels"] = [tuple(kernel) if isinstance(kernel, list) else kernel for kernel in blocks["kernels"]]
    for i, (s, b) in enumerate(space.slots):
        stage = space.stages[s]
        meant = stage.meant(data["kinds"][s] if mixed else stage.block) if b < data["depths"][s] else ()
        choices = {"kernels": space.kernels(i), "expands": stage.expands, **stage.attention_choices}
        for name in (name for name, values in blocks.items() if values):
            if name not in meant:
                blocks[name][i] = choices[name][0]
            _member(space, f"{name}[{i}]", blocks[name][i], choices[name])
    fields = {name: tuple(data[name]) for name in ("depths", "channels", "kinds")}
    fields |= {name: tuple(values) for name, values in blocks.items()}
    return ChainArch(space.name, data["resolution"], float(data["width"]), **fields)


def _member(space: SearchSpace, field: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        shown, known = _as_lists(value), _as_lists(choices)
        raise UsageError(f"arch of {space.name}: {field} is {shown!r}; the space has {known}")
