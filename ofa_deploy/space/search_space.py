"""Search spaces and their subnets, after Once-for-All (Cai et al., ICLR 2020, §3): elastic resolution, width, depth,
kernel size and expand ratio over a chain of stages of MBConv blocks or universal inverted bottlenecks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any

from ofa_deploy.blocks import Network, OpSpec, Unit
from ofa_deploy.blocks.counts import params, peak_activations
from ofa_deploy.blocks.kinds import Kernel, make_divisible, stage_kind
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.space.chain_arch import BLOCK_FIELDS, ChainArch, checked
from ofa_deploy.space.chain_genes import arch_of, genes_of, own_genes_of, places_of, values_of
from ofa_deploy.space.family import ArchLike, Family, Gene, Place
from ofa_deploy.space.stage_spec import StageSpec, kernel_size, not_empty


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
        not_empty(self, "stages", "resolutions", "widths")
        if self.first_block and not self.stem_width:
            raise UsageError(f"space {self.name}: first_block follows the stem; give a stem_width, or leave it out")

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Everything that can be chosen; see ``chain_genes``."""
        return genes_of(self)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where blocks stand: the slots of the stages, then what comes before and after them."""
        return places_of(self)

    def values(self, arch: ArchLike) -> list[Any]:
        """What a subnet chose of every gene."""
        return values_of(self, arch)

    def arch(self, values: Sequence[Any]) -> ChainArch:
        """The subnet that chose so; genes of absent slots must hold their first choice."""
        return arch_of(self, values)

    def canonical(self, arch: ArchLike) -> ChainArch:
        """Check a subnet against this space and normalise its unused slots.

        Any resolution in ``RESOLUTION_RANGE`` is accepted, for counting; ``width`` may be absent where there is one.

        Raises:
            UsageError: names the first field that does not belong to this space.
        """
        return checked(self, arch)

    def op_at(self, place: int, values: Mapping[int, Any]) -> OpSpec:
        """The block at a place, from what its genes chose, by their numbers."""
        resolution, width = values[0], values[1]
        chosen = {stage: values.get(2 + i) for i, stage in enumerate(self.elastic_stages)}
        channels = [chosen.get(s) or stage.width for s, stage in enumerate(self.stages)]
        if place < len(self._spots):
            stage, position, kind, own = self._spots[place]
            kernel, expand, *attention = (values.get(own.get(name, -1), 0) for name in BLOCK_FIELDS)
            size = (resolution, width, kernel, expand or 1, channels, kind)
            return self.block(stage, position, *size, *attention)
        before, after = self.fixed_ops(resolution, width, channels)
        return [*before, *after][place - len(self._spots)]

    @cached_property
    def _spots(self) -> tuple[tuple[int, int, str, dict[str, int]], ...]:
        """Stage, position, kind and own genes of the block at each of the first places."""
        return tuple((s, b, kind, self.own_genes[self.slot(s, b)]) for s, b, kind in self.blocks.values())

    @cached_property
    def own_genes(self) -> tuple[dict[str, int], ...]:
        """For every slot the numbers of its blocks' own genes, by their fields of an arch."""
        return own_genes_of(self)

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
    def blocks(self) -> dict[str, tuple[int, int, str]]:
        """Stage, position and kind of every block that stages can have, by its name in networks and supernets."""
        found = {}
        for s, b in self.slots:
            stage = self.stages[s]
            for kind in stage.all_kinds:
                found[self.block_name(s, b, kind)] = (s, b, kind)
        return found

    def block_name(self, stage: int, position: int, kind: str = "") -> str:
        """``s0b1``; ``s0b1_conv`` where its stage has a choice of its kind."""
        return f"s{stage}b{position}" + (f"_{kind or self.stages[stage].block}" if self.stages[stage].kinds else "")

    @property
    def size_genes(self) -> int:
        """How many genes are the resolution and the widths."""
        return 2 + len(self.elastic_stages)

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """(stage, position in the stage) of every block slot."""
        return tuple((s, b) for s, stage in enumerate(self.stages) for b in range(max(stage.depths)))

    def slot(self, stage: int, position: int) -> int:
        """Number of a slot."""
        return sum(max(before.depths) for before in self.stages[:stage]) + position

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
        total = prod(len(gene.choices) for gene in self.genes[: self.size_genes])
        counts = [{name: len(self.genes[gene].choices) for name, gene in own.items()} for own in self.own_genes]
        for s, stage in enumerate(self.stages):
            here = [count for (of, _), count in zip(self.slots, counts, strict=True) if of == s]
            found = 0
            for kind in stage.all_kinds:
                blocks = [prod(n for name, n in count.items() if name in stage.meant(kind)) for count in here]
                found += sum(prod(blocks[:depth]) for depth in stage.depths)
            total *= found
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
                "kernels": [pick(self.kernels(i), key=kernel_size) for i in range(len(self.slots))],
                "expands": [pick(self.stages[s].expands) for s, _ in self.slots],
                "channels": [pick(stage.all_widths) for stage in self.stages if self.elastic_stages],
                "kinds": [self._kind(s, pick) for s, stage in enumerate(self.stages) if self._mixed],
                "heads": self._of_attention("heads", pick),
                "key_widths": self._of_attention("key_widths", pick),
            }
        )

    def _of_attention(self, name: str, pick: Any) -> list[int]:
        """One of the heads or of their widths for every slot; nothing where no stage has a choice."""
        choices = [self.stages[s].attention_choices[name] for s, _ in self.slots]
        return [pick(values) for values in choices] if any(map(any, choices)) else []

    @property
    def _mixed(self) -> bool:
        return any(stage.kinds for stage in self.stages)

    def _kind(self, stage: int, pick: Any) -> str:
        """The kind of a stage's blocks in the largest subnet, or the one of least parameters in the smallest."""
        spec = self.stages[stage]
        if pick is max or not spec.kinds:
            return spec.block
        kernel, expand = min(self.kernels(self.slot(stage, 0)), key=kernel_size), min(spec.expands)
        attention = [min(values) for values in spec.attention_choices.values()]
        sizes = {
            kind: params(self.block(stage, 0, min(self.resolutions), 1.0, kernel, expand, (), kind, *attention).block)
            for kind in spec.kinds
        }
        return min(spec.kinds, key=sizes.__getitem__)

    def alike(self, other: Family) -> bool:
        """Whether another space has the same stages and widths under the same name."""
        same = (self.name, self.stages, self.widths)
        return isinstance(other, SearchSpace) and same == (other.name, other.stages, other.widths)

    def with_resolutions(self, resolutions: tuple[int, ...]) -> SearchSpace:
        """The same space at other input sizes."""
        return replace(self, resolutions=tuple(sorted(set(resolutions))))

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
        heads: int = 0,
        key_width: int = 0,
    ) -> OpSpec:
        """The block at one slot, for one choice of its genes.

        Args:
            channels: as a ``ChainArch`` has them; the stages' widths by default.
            block: its kind; the stage's by default.
            heads, key_width: of its attention; 0 for those that the stage or the kind gives.
        """
        spec, first = self.stages[stage], position == 0
        side = self.stage_inputs(resolution)[stage + (not first)]
        bases = [self.stem_width, *(channels or (one.width for one in self.stages))]
        cin, cout = self.channels(bases[stage + (not first)], width), self.channels(bases[stage + 1], width)
        if first and not stage and not self.stem_width:
            cin = self.in_channels
        stride = spec.stride if first else 1
        kind = stage_kind(block or spec.block)
        attention = (key_width or spec.key_width, heads)
        fields = kind.fields(cin, cout, stride, kernel, expand if kind.expands else 1, *attention)
        squeezed = make_divisible(fields["mid"] // 4) if spec.squeeze == "expanded" else max(1, cin // 4)
        fields["se"] = squeezed if spec.se else 0
        fields |= {"eps": self.bn_eps, "same": self.same_padding}
        return OpSpec(kind.name, side, side, cin, cout=cout, stride=stride, act=spec.act, **fields)

    def active_slots(self, arch: ChainArch) -> Iterator[tuple[int, int, int]]:
        """(slot, stage, position) of every block that the subnet has."""
        return ((i, s, b) for i, (s, b) in enumerate(self.slots) if b < arch.depths[s])

    def network(self, arch: ArchLike) -> Network:
        """The chain of blocks that a subnet is."""
        arch = self.canonical(arch)
        before, after = self.fixed_ops(arch.resolution, arch.width, arch.channels)
        blocks = {}
        for i, s, b in self.active_slots(arch):
            kind = arch.kinds[s] if arch.kinds else ""
            genes = (arch.resolution, arch.width, arch.kernels[i], arch.expands[i], arch.channels)
            attention = (arch.heads[i] if arch.heads else 0, arch.key_widths[i] if arch.key_widths else 0)
            blocks[self.block_name(s, b, kind)] = self.block(s, b, *genes, kind, *attention)
        return _chain(before, blocks, after)

    @cached_property
    def whole(self) -> Network:
        """The largest subnet with the weights of all others: every kind that a stage may have, one after the other."""
        largest = self.largest
        before, after = self.fixed_ops(largest.resolution, largest.width, largest.channels)
        blocks = {}
        for name, (s, b, kind) in self.blocks.items():
            genes = (largest.resolution, largest.width, largest.kernels[self.slot(s, b)], max(self.stages[s].expands))
            attention = [max(values) for values in self.stages[s].attention_choices.values()]
            op = self.block(s, b, *genes, largest.channels, kind, *attention)
            blocks[name] = self.with_shortcut(s, b, op)
        return _chain(before, blocks, after)

    def with_shortcut(self, stage: int, position: int, op: OpSpec) -> OpSpec:
        """A block with the weights of its shortcut, where it needs none and narrower ones of the same slot do: those
        whose stage and the one before differ in their chosen widths."""
        elastic = {stage, stage - 1} & set(self.elastic_stages)
        needed = position == 0 and elastic and stage_kind(op.kind).projects
        return replace(op, skip=False) if needed else op

    def to_json(self) -> dict[str, JSON]:
        """The space as a JSON object; ``load_space`` reads it back. Choices that it does not have are left out, as in
        files of before there were any."""
        fields = json.loads(json.dumps(asdict(self)))
        free = ("widths", "kinds", "key_width", "heads", "key_widths")
        fields["stages"] = [{k: v for k, v in stage.items() if k not in free or v} for stage in fields["stages"]]
        if not self.same_padding:
            del fields["same_padding"]
        return fields


def _chain(before: Sequence[OpSpec], blocks: Mapping[str, OpSpec], after: Sequence[OpSpec]) -> Network:
    """The stages' blocks, by their names, between what comes before and after them."""
    names = (*["stem", "first"][: len(before)], *blocks, "head", "classifier")
    return Network((*before, *blocks.values(), *after), names)


@lru_cache(maxsize=65536)  # most places can hold the same blocks
def _peak(op: OpSpec) -> int:
    return peak_activations(op.block)
