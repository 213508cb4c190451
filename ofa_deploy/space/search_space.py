"""Search spaces and their subnets, after Once-for-All (Cai et al., ICLR 2020, §3): elastic resolution, width, depth,
kernel size and expand ratio over a chain of stages of MBConv blocks or universal inverted bottlenecks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ofa_deploy.blocks import Conv, Network, OpSpec, Unit
from ofa_deploy.blocks.counts import params, peak_activations
from ofa_deploy.blocks.kinds import Kernel, make_divisible, stage_kind
from ofa_deploy.errors import UsageError
from ofa_deploy.space.family import Arch, Family, Gene, Place

RESOLUTION_RANGE = (16, 1024)


@dataclass(frozen=True)
class StageSpec:
    """A run of blocks of equal width; the first one has the stage's stride.

    Attributes:
        width: output channels at width multiplier 1.0.
        widths: choices of that, the largest of which is ``width``; empty where there is no choice.
        stride: of the first block.
        act: activation inside the blocks.
        se: whether blocks have squeeze-excitation.
        key_width: channels of an attention head; 0 for those that the kind of block has by itself.
        squeeze: of which channels it keeps a quarter: the block's ``expanded`` ones (MobileNetV3), or its ``input``
            (EfficientNet).
        depths, kernels, expands: the choices of the stage's block count, and of each block.
        block: kind of the blocks, which says what their kernels and expand ratios mean; see ``blocks.kinds``.
        kinds: choices of that for each block, one of which is ``block``, the largest subnet's; empty where there is no
            choice. Each has weights of its own.

    Raises:
        UsageError: a list of choices is empty, there is no such kind of block, or it cannot have what was chosen.
    """

    width: int
    stride: int
    act: str = "relu"
    se: bool = False
    depths: tuple[int, ...] = (2, 3, 4)
    kernels: tuple[Kernel, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    block: str = "mbconv"
    squeeze: str = "expanded"
    widths: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    key_width: int = 0

    def __post_init__(self) -> None:
        _not_empty(self, "depths", "kernels", "expands")
        if self.kinds and self.block not in self.kinds:
            raise UsageError(f"block is {self.block}; it must be one of kinds, which are {', '.join(self.kinds)}")
        if self.widths and max(self.widths) != self.width:
            raise UsageError(f"width is {self.width}; it must be the largest of widths, which is {max(self.widths)}")
        kinds = [stage_kind(name) for name in self.all_kinds]
        if self.key_width and not any(kind.attends for kind in kinds):
            raise UsageError(f"{self.block} blocks have no attention; remove key_width")
        for kind in kinds:
            # an expansion that is another kind's choice means nothing for this one
            expands = self.expands if kind.expands or not self.kinds else (1.0,)
            kind.check_stage(self.kernels, expands, self.stride, self.se)

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The kinds that its blocks can have."""
        return self.kinds or (self.block,)

    @property
    def all_widths(self) -> tuple[int, ...]:
        """The widths that it can have."""
        return self.widths or (self.width,)


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

    def to_json(self) -> dict[str, Any]:
        """The subnet as a JSON object; ``channels`` and ``kinds`` are there only where stages have a choice of them."""
        return {k: _as_lists(v) for k, v in asdict(self).items() if k not in ("channels", "kinds") or v}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class SearchSpace:
    """Everything that can be built from one supernet.

    Attributes:
        resolutions, widths: the elastic input sizes (pixels) and channel multipliers.
        stem_width, stem_stride, stem_act: the first convolution; a width of 0 for none: the first stage then reads the
            images.
        first_block: whether a fixed MBConv (kernel 3, stride 1, expand 1, relu) of the stem's width follows it.
        head_width: channels of the last 1×1 convolution before pooling; 0 for pooling alone.
        feature_width: width of the linear layer before the classifier; 0 for none.
        bn_eps: what batch norm adds to variances.
        same_padding: whether convolutions are padded as TensorFlow's ``SAME`` is: with a stride, an even side gets a
            zero less before it than after it.

    Raises:
        UsageError: there is no stage, resolution or width.
    """

    name: str
    stages: tuple[StageSpec, ...]
    resolutions: tuple[int, ...]
    widths: tuple[float, ...] = (1.0,)
    in_channels: int = 3
    num_classes: int = 1000
    stem_width: int = 16
    stem_stride: int = 2
    stem_act: str = "hswish"
    first_block: bool = True
    head_width: int = 960
    feature_width: int = 1280
    head_act: str = "hswish"
    bn_eps: float = 1e-5
    same_padding: bool = False

    def __post_init__(self) -> None:
        _not_empty(self, "stages", "resolutions", "widths")
        if self.first_block and not self.stem_width:
            raise UsageError(f"space {self.name}: first_block follows the stem; give a stem_width, or leave it out")

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Everything that can be chosen: ``size_genes`` that change many blocks, then the depths of the stages, the
        kernels of all slots, their expand ratios, and their kinds."""
        slots = range(len(self.slots))
        return (
            Gene("resolution", self.resolutions),
            Gene("width", self.widths),
            *(Gene(f"channels[{s}]", self.stages[s].widths) for s in self.elastic_stages),
            *(Gene(f"depths[{s}]", stage.depths) for s, stage in enumerate(self.stages)),
            *(Gene(f"kernels[{i}]", self.kernels(i)) for i in slots),
            *(Gene(f"expands[{i}]", self.stages[self.slots[i][0]].expands) for i in slots),
            *(Gene(f"kinds[{i}]", self.stages[self.slots[i][0]].kinds) for i in self.mixed_slots),
        )

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where blocks stand: the slots of the stages, then what comes before and after them. ``op_at`` tells which."""
        of_stage = {stage: 2 + i for i, stage in enumerate(self.elastic_stages)}
        depth0, slots, last = self.size_genes, len(self.slots), len(self.stages) - 1
        kernel0 = depth0 + len(self.stages)
        found = []
        for i, (s, b) in enumerate(self.slots):
            read = (s if b else s - 1, s)  # the stages whose widths the block reads and writes
            size = (0, 1, *(of_stage[stage] for stage in dict.fromkeys(read) if stage in of_stage))
            present = tuple(b < depth for depth in self.stages[s].depths)
            own, silent = [kernel0 + i, kernel0 + slots + i], list[tuple[int, int, int]]()
            if i in self.mixed_slots:
                own.append(kernel0 + 2 * slots + self.mixed_slots.index(i))
                kinds = enumerate(map(stage_kind, self.stages[s].kinds))
                silent = [(own[2], choice, own[1]) for choice, kind in kinds if not kind.expands]
            found.append(Place(size, tuple(own), depth0 + s, present, tuple(silent)))
        before = (self.stem_width > 0) + self.first_block
        head = (0, 1, of_stage[last]) if last in of_stage else (0, 1)
        return (*found, *[Place((0, 1))] * before, Place(head), Place((0, 1) if self.head_width else head))

    def op_at(self, place: int, values: Mapping[int, Any]) -> OpSpec:
        """The block at a place, from what its genes chose, by their numbers."""
        resolution, width = values[0], values[1]
        chosen = {stage: values.get(2 + i) for i, stage in enumerate(self.elastic_stages)}
        channels = [chosen.get(s) or stage.width for s, stage in enumerate(self.stages)]
        if place < len(self.slots):
            kernel, expand, *kind = (values[gene] for gene in self.places[place].own)
            return self.block(*self.slots[place], resolution, width, kernel, expand, channels, *kind)
        before, after = self.fixed_ops(resolution, width, channels)
        return [*before, *after][place - len(self.slots)]

    def unit_at(self, place: int, values: Mapping[int, Any]) -> Unit:
        """``op_at`` as what is measured."""
        return Unit(self.op_at(place, values))

    def peak_at(self, place: int, values: Mapping[int, Any]) -> int:
        """Values in memory at once while the block at a place runs."""
        return _peak(self.op_at(place, values))

    @cached_property
    def elastic_stages(self) -> tuple[int, ...]:
        """The stages that have a choice of their width."""
        return tuple(s for s, stage in enumerate(self.stages) if stage.widths)

    @cached_property
    def mixed_slots(self) -> tuple[int, ...]:
        """The slots that have a choice of their kind."""
        return tuple(i for i, (s, _) in enumerate(self.slots) if self.stages[s].kinds)

    @cached_property
    def blocks(self) -> dict[str, tuple[int, int, str]]:
        """Stage, position and kind of every block that stages can have, by its name in networks and supernets."""
        found = {}
        for s, b in self.slots:
            stage = self.stages[s]
            for kind in stage.all_kinds:
                found[self.block_name(s, b, kind)] = (s, b, kind)
        return found

    def block_name(self, stage: int, position: int, kind: str = "") -> str:
        """``s0b1``; ``s0b1_conv`` where a slot has a choice of its kind."""
        return f"s{stage}b{position}" + (f"_{kind or self.stages[stage].block}" if self.stages[stage].kinds else "")

    @property
    def size_genes(self) -> int:
        """How many genes are the resolution and the widths."""
        return 2 + len(self.elastic_stages)

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(stage, position in the stage) of every block slot."""
        return tuple((s, b) for s, stage in enumerate(self.stages) for b in range(max(stage.depths)))

    def kernels(self, slot: int) -> tuple[Kernel, ...]:
        """The choices of a slot's kernels: the stage's, without those that cannot stride where one has to."""
        stage, position = self.slots[slot]
        spec = self.stages[stage]
        if position or spec.stride == 1:
            return spec.kernels
        kinds = [stage_kind(kind) for kind in spec.all_kinds]
        return tuple(kernel for kernel in spec.kernels if all(kind.strides(kernel) for kind in kinds))

    @cached_property
    def size(self) -> int:
        """How many different subnets there are."""
        total, place = prod(len(gene.choices) for gene in self.genes[: self.size_genes]), 0
        for stage in self.stages:
            kinds = map(stage_kind, stage.all_kinds)
            expands = sum(len(stage.expands) if kind.expands else 1 for kind in kinds)
            choices = [len(self.kernels(place + b)) * expands for b in range(max(stage.depths))]
            total *= sum(prod(choices[:depth]) for depth in stage.depths)
            place += len(choices)
        return total

    @property
    def largest(self) -> ChainArch:
        """The subnet with every choice at its maximum."""
        return self._uniform(max)

    @property
    def smallest(self) -> ChainArch:
        """The subnet with every choice at its minimum."""
        return self._uniform(min)

    def _uniform(self, pick: Any) -> ChainArch:
        return self.canonical(
            {
                "resolution": pick(self.resolutions),
                "width": pick(self.widths),
                "depths": [pick(stage.depths) for stage in self.stages],
                "kernels": [pick(self.kernels(i), key=_size) for i in range(len(self.slots))],
                "expands": [pick(self.stages[s].expands) for s, _ in self.slots],
                "channels": [pick(stage.all_widths) for stage in self.stages if self.elastic_stages],
                "kinds": [self._kind(s, pick) for s, _ in self.slots if self.mixed_slots],
            }
        )

    def _kind(self, stage: int, pick: Any) -> str:
        """The kind of a stage's blocks in the largest subnet, or the one of least parameters in the smallest."""
        spec = self.stages[stage]
        if pick is max or not spec.kinds:
            return spec.block
        kernel, expand = min(self.kernels(self.slots.index((stage, 0))), key=_size), min(spec.expands)
        sizes = {
            kind: params(self.block(stage, 0, min(self.resolutions), 1.0, kernel, expand, (), kind).block)
            for kind in spec.kinds
        }
        return min(spec.kinds, key=sizes.__getitem__)

    def values(self, arch: Arch | Mapping[str, Any]) -> list[Any]:
        """What a subnet chose of every gene."""
        arch = self.canonical(arch)
        channels = [arch.channels[s] for s in self.elastic_stages]
        kinds = [arch.kinds[i] for i in self.mixed_slots]
        return [arch.resolution, arch.width, *channels, *arch.depths, *arch.kernels, *arch.expands, *kinds]

    def arch(self, values: Sequence[Any]) -> ChainArch:
        """The subnet that chose so; genes of absent slots must hold their first choice."""
        slots = len(self.slots)
        counts = [2, len(self.elastic_stages), len(self.stages), slots, slots, len(self.mixed_slots)]
        chosen, depths, kernels, expands, mixed = (tuple(values[a:b]) for a, b in pairwise(np.cumsum(counts).tolist()))
        kinds = [self.stages[s].block for s, _ in self.slots] if mixed else []
        for slot, kind in zip(self.mixed_slots, mixed, strict=True):
            kinds[slot] = kind
        channels = [stage.width for stage in self.stages] if chosen else []
        for stage, count in zip(self.elastic_stages, chosen, strict=True):
            channels[stage] = count
        return ChainArch(self.name, values[0], values[1], depths, kernels, expands, tuple(channels), tuple(kinds))

    def alike(self, other: Family) -> bool:
        """Whether another space has the same stages and widths under the same name."""
        same = (self.name, self.stages, self.widths)
        return isinstance(other, SearchSpace) and same == (other.name, other.stages, other.widths)

    def with_resolutions(self, resolutions: tuple[int, ...]) -> SearchSpace:
        """The same space at other input sizes."""
        return replace(self, resolutions=tuple(sorted(set(resolutions))))

    def canonical(self, arch: Arch | Mapping[str, Any]) -> ChainArch:
        """Check a subnet against this space and normalise its unused slots.

        Any resolution in ``RESOLUTION_RANGE`` is accepted, for counting; ``width`` may be absent where there is one.

        Raises:
            UsageError: names the first field that does not belong to this space.
        """
        data = dict(arch if isinstance(arch, Mapping) else arch.to_json())
        if data.setdefault("space", self.name) != self.name:
            raise UsageError(f"the arch belongs to space {data['space']!r}, not to {self.name!r}")
        data.setdefault("width", self.widths[0] if len(self.widths) == 1 else None)
        data.setdefault("channels", [stage.width for stage in self.stages if self.elastic_stages])
        data.setdefault("kinds", [self.stages[s].block for s, _ in self.slots if self.mixed_slots])
        unknown = set(data) - set(ChainArch.__dataclass_fields__)
        missing = set(ChainArch.__dataclass_fields__) - set(data)
        if unknown or missing:
            raise UsageError(f"arch of {self.name}: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
        low, high = RESOLUTION_RANGE
        if not isinstance(data["resolution"], int) or not low <= data["resolution"] <= high:
            raise UsageError(f"arch of {self.name}: resolution {data['resolution']!r} is not from {low} to {high}")
        self._member("width", data["width"], self.widths)
        lengths = {
            "depths": len(self.stages),
            "kernels": len(self.slots),
            "expands": len(self.slots),
            "channels": len(self.stages) if self.elastic_stages else 0,
            "kinds": len(self.slots) if self.mixed_slots else 0,
        }
        for name, length in lengths.items():
            if not isinstance(data[name], (list, tuple)) or len(data[name]) != length:
                raise UsageError(f"arch of {self.name}: {name} needs a list of {length} values")
        for i, channels in enumerate(data["channels"]):
            self._member(f"channels[{i}]", channels, self.stages[i].all_widths)
        kernels = [tuple(kernel) if isinstance(kernel, list) else kernel for kernel in data["kernels"]]
        expands, kinds = list(data["expands"]), list(data["kinds"])
        for i, stage in enumerate(self.stages):
            self._member(f"depths[{i}]", data["depths"][i], stage.depths)
        for i, (s, b) in enumerate(self.slots):
            stage = self.stages[s]
            if b >= data["depths"][s]:
                kernels[i], expands[i] = self.kernels(i)[0], stage.expands[0]
                if kinds:
                    kinds[i] = stage.all_kinds[0]
            if kinds:
                self._member(f"kinds[{i}]", kinds[i], stage.all_kinds)
                if stage.kinds and not stage_kind(kinds[i]).expands:
                    expands[i] = stage.expands[0]  # it means nothing
            self._member(f"kernels[{i}]", kernels[i], self.kernels(i))
            self._member(f"expands[{i}]", expands[i], stage.expands)
        blocks = (tuple(data["depths"]), tuple(kernels), tuple(expands), tuple(data["channels"]), tuple(kinds))
        return ChainArch(self.name, data["resolution"], float(data["width"]), *blocks)

    def _member(self, field: str, value: Any, choices: tuple[Any, ...]) -> None:
        if value not in choices:
            shown, known = _as_lists(value), _as_lists(choices)
            raise UsageError(f"arch of {self.name}: {field} is {shown!r}; the space has {known}")

    def channels(self, base: int, width: float) -> int:
        """Channels of a layer of ``base`` channels at a width multiplier."""
        return make_divisible(base * width)

    def fixed_ops(
        self, resolution: int, width: float, channels: Sequence[int] = ()
    ) -> tuple[list[OpSpec], list[OpSpec]]:
        """The blocks that no gene but resolution and widths changes: those before and those after the stages."""
        eps, before, after = self.bn_eps, list[OpSpec](), list[OpSpec]()
        if self.stem_width:
            stem = self.channels(self.stem_width, width)
            first = (self.in_channels, 0, stem, 3, self.stem_stride)
            before.append(
                OpSpec("stem", resolution, resolution, *first, self.stem_act, eps=eps, same=self.same_padding)
            )
            if self.first_block:
                h, w = before[0].out_hw
                before.append(OpSpec("mbconv", h, w, stem, stem, stem, 3, 1, "relu", skip=True, eps=eps))
        h = self.stage_inputs(resolution)[-1]
        features = self.channels(channels[-1] if channels else self.stages[-1].width, width)
        if self.head_width:
            head = self.channels(self.head_width, width)
            after.append(OpSpec("head", h, h, features, 0, head, 1, 1, self.head_act, eps=eps))
            features = head
        else:
            after.append(OpSpec("global_pool", h, h, features, 0, features, act="none"))
        mixed = self.channels(self.feature_width, width) if self.feature_width else 0
        act = self.head_act if mixed else "none"
        after.append(OpSpec("classifier", 1, 1, features, mixed, self.num_classes, 1, 1, act))
        return before, after

    def stage_inputs(self, resolution: int) -> list[int]:
        """Input side of every stage, and after the last one, in pixels."""
        sides = [(resolution - 1) // self.stem_stride + 1 if self.stem_width else resolution]
        for stage in self.stages:
            sides.append((sides[-1] - 1) // stage.stride + 1)
        return sides

    def block(
        self,
        stage: int,
        position: int,
        resolution: int,
        width: float,
        kernel: Kernel,
        expand: float,
        channels: Sequence[int] = (),
        block: str = "",
    ) -> OpSpec:
        """The block at one slot, for one choice of its genes.

        Args:
            channels: as a ``ChainArch`` has them; the stages' widths by default.
            block: its kind; the stage's by default.
        """
        spec, first = self.stages[stage], position == 0
        side = self.stage_inputs(resolution)[stage + (not first)]
        bases = [self.stem_width, *(channels or (one.width for one in self.stages))]
        cin, cout = self.channels(bases[stage + (not first)], width), self.channels(bases[stage + 1], width)
        if first and not stage and not self.stem_width:
            cin = self.in_channels
        stride = spec.stride if first else 1
        kind = stage_kind(block or spec.block)
        fields = kind.fields(cin, cout, stride, kernel, expand if kind.expands else 1, spec.key_width)
        squeezed = make_divisible(fields["mid"] // 4) if spec.squeeze == "expanded" else max(1, cin // 4)
        fields["se"] = squeezed if spec.se else 0
        fields |= {"eps": self.bn_eps, "same": self.same_padding}
        return OpSpec(kind.name, side, side, cin, cout=cout, stride=stride, act=spec.act, **fields)

    def active_slots(self, arch: ChainArch) -> Iterator[tuple[int, int, int]]:
        """(slot, stage, position) of every block that the subnet has."""
        return ((i, s, b) for i, (s, b) in enumerate(self.slots) if b < arch.depths[s])

    def network(self, arch: Arch | Mapping[str, Any]) -> Network:
        """The chain of blocks that a subnet is."""
        arch = self.canonical(arch)
        before, after = self.fixed_ops(arch.resolution, arch.width, arch.channels)
        blocks = {}
        for i, s, b in self.active_slots(arch):
            kind = arch.kinds[i] if arch.kinds else ""
            genes = (arch.resolution, arch.width, arch.kernels[i], arch.expands[i], arch.channels)
            blocks[self.block_name(s, b, kind)] = self.block(s, b, *genes, kind)
        return _chain(before, blocks, after)

    @cached_property
    def whole(self) -> Network:
        """The largest subnet with the weights of all others: every kind that a slot may have, one after the other."""
        largest = self.largest
        before, after = self.fixed_ops(largest.resolution, largest.width, largest.channels)
        blocks = {}
        for name, (s, b, kind) in self.blocks.items():
            slot = self.slots.index((s, b))
            genes = (largest.resolution, largest.width, largest.kernels[slot], max(self.stages[s].expands))
            blocks[name] = self.with_shortcut(s, b, self.block(s, b, *genes, largest.channels, kind))
        return _chain(before, blocks, after)

    def with_shortcut(self, stage: int, position: int, op: OpSpec) -> OpSpec:
        """A block with the weights of its shortcut, where it needs none and narrower ones of the same slot do: those
        whose stage and the one before differ in their chosen widths."""
        elastic = {stage, stage - 1} & set(self.elastic_stages)
        needed = position == 0 and elastic and stage_kind(op.kind).projects
        return replace(op, skip=False) if needed else op

    def to_json(self) -> dict[str, Any]:
        """The space as a JSON object; ``load_space`` reads it back. Choices that it does not have are left out, as in
        files of before there were any."""
        fields = json.loads(json.dumps(asdict(self)))
        free = ("widths", "kinds", "key_width")
        fields["stages"] = [{k: v for k, v in stage.items() if k not in free or v} for stage in fields["stages"]]
        if not self.same_padding:
            del fields["same_padding"]
        return fields


@lru_cache(maxsize=1024)
def elastic_kernels(space: SearchSpace, block: str) -> dict[str, tuple[int, ...]]:
    """For every elastic convolution of a block, by its weights' name, the kernel sizes that it can have, largest first;
    that it may be absent does not count. Not to be written to.

    Args:
        block: its name, one of ``space.blocks``.
    """
    arch, sizes = space.largest, dict[str, set[int]]()
    stage, position, kind = space.blocks[block]
    expand = max(space.stages[stage].expands)
    for kernel in space.kernels(space.slots.index((stage, position))):
        op = space.block(stage, position, arch.resolution, arch.width, kernel, expand, (), kind)
        for layer in space.with_shortcut(stage, position, op).block.layers:
            if isinstance(layer, Conv) and layer.elastic:
                sizes.setdefault(layer.name, set()).add(layer.kernel)
    return {name: tuple(sorted(found, reverse=True)) for name, found in sizes.items()}


def _chain(before: Sequence[OpSpec], blocks: Mapping[str, OpSpec], after: Sequence[OpSpec]) -> Network:
    """The stages' blocks, by their names, between what comes before and after them."""
    names = (*["stem", "first"][: len(before)], *blocks, "head", "classifier")
    return Network((*before, *blocks.values(), *after), names)


def _not_empty(part: StageSpec | SearchSpace, *names: str) -> None:
    for name in names:
        if not getattr(part, name):
            raise UsageError(f"{name} is empty; give at least one value")


def _size(kernel: Kernel) -> Kernel:
    """What kernels are ordered by: the depthwise on the expanded channels costs more."""
    return kernel[::-1] if isinstance(kernel, tuple) else kernel


@lru_cache(maxsize=65536)  # most places can hold the same blocks
def _peak(op: OpSpec) -> int:
    return peak_activations(op.block)
