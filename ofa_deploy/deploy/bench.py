"""Where finalists are built and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ofa_deploy.accuracy.belief import Validation, posterior
from ofa_deploy.blocks import Network
from ofa_deploy.deploy.extraction import Finalist
from ofa_deploy.deploy.finetuning import Tuning, finetune
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.fleet import Fleet, MeasureItem
from ofa_deploy.fleet.gauge import FORECAST, Gauge
from ofa_deploy.graph import model_file
from ofa_deploy.latency import LatencyModel, Measurement
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.notices import Progress
from ofa_deploy.search import Gradient, Point, SearchResult
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet


@dataclass
class Bench:
    """Where the finalists of an order are built and measured; all of one call in the same rounds, and the anchor with
    them.

    Attributes:
        gradient: what the strategy ``differentiable`` learns from.
        gauge: tells how fast the device is; None where that is not asked.
        level: how fast the device is, as it was seen last; None where that is not known.
        result: the last search.
        finalists: all that were measured.
    """

    fleet: Fleet
    workspace: Workspace
    order: Order
    progress: Progress | None = None
    gradient: Gradient | None = None
    gauge: Gauge | None = None
    level: LevelNow | None = None
    result: SearchResult | None = None
    finalists: list[Finalist] = field(default_factory=list)

    @cached_property
    def earlier(self) -> dict[str, float]:
        """What networks took when earlier questions were answered, in ms, by their keys."""
        return {one.arch.key: one.measured_ms for one in reversed(self.order.earlier)}

    def ready(self) -> tuple[LatencyModel, PopulationCodec]:
        """See ``ready_model``."""
        order, device = self.order, self.fleet if self.order.may_profile else None
        return ready_model(
            device,
            self.workspace,
            order.target,
            order.subject.space,
            order.constraints.statistic,
            order.protocol,
            self.progress,
        )

    def look(self, session: Sequence[Measurement] = ()) -> LevelNow | None:
        """See from a session of the last seconds how fast the device is now, or measure it."""
        if self.gauge:
            self.level = self.gauge.seen_in(session) or self.gauge.measure(self.fleet, self.progress)
        return self.level

    def measure(self, model: LatencyModel, points: list[Point]) -> list[Finalist]:
        """Build, evaluate and measure subnets."""
        subject = self.order.subject
        networks = [subject.space.network(point.arch) for point in points]
        subnets = [subject.subnet(point.arch) for point in points]
        valid = self._validated(points)
        files = [self._file(subnet, point.arch) for subnet, point in zip(subnets, points, strict=True)]
        records, level = self._records(networks, files, points)
        mean, std = model.predict(networks)
        return [
            Finalist(
                point=point,
                predictor=model,
                predicted_ms=float(mean[i]),
                std_ms=float(std[i]),
                table_ms=model.table.known_total(networks[i], model.statistic),
                subnet=subnets[i],
                onnx=files[i],
                records=(records[i],),
                levels=(level,),
                valid=valid[i],
                belief=subject.belief(point.arch),
                earlier_ms=self.earlier.get(point.arch.key),
            )
            for i, point in enumerate(points)
        ]

    def worth(self, points: list[Point]) -> list[float]:
        """The expected accuracies of subnets, as their finalists would have them."""
        known = [
            posterior(self.order.subject.belief(point.arch), valid)
            for point, valid in zip(points, self._validated(points), strict=True)
        ]
        return [p.accuracy if one is None else one.mean for p, one in zip(points, known, strict=True)]

    def _validated(self, points: list[Point]) -> list[Validation | None]:
        campaign, archs = self.order.subject.campaign, [point.arch for point in points]
        return [*campaign.results(archs, ["finalist"] * len(archs))] if campaign else [None] * len(archs)

    def measure_again(self, finalists: list[Finalist], keep: bool) -> list[Finalist]:
        """The same subnets with new measurements, beside the old ones or in place of them."""
        networks = [self.order.subject.space.network(f.point.arch) for f in finalists]
        records, level = self._records(networks, [f.onnx for f in finalists], [f.point for f in finalists])
        return [
            replace(f, records=(*f.records, record), levels=(*f.levels, level))
            if keep
            else replace(f, records=(record,), levels=(level,))
            for f, record in zip(finalists, records, strict=True)
        ]

    def tune(self, finalist: Finalist, tuning: Tuning) -> Finalist:
        """The same subnet with weights that were trained on. Its measurements stay: they are those of its graph."""
        subject, arch = self.order.subject, finalist.point.arch
        tuned = finetune(self.workspace, subject, arch, tuning, self.progress)
        file = self._file(tuned.subnet, arch)
        valid = Validation(tuned.facts.after.valid, tuned.facts.images.valid)
        return replace(finalist, subnet=tuned.subnet, onnx=file, valid=valid, tuned=tuned)

    def fp32_record(self, chosen: Finalist) -> Measurement:
        """The measurement of the answer's graph in fp32, beside which int8's stands."""
        target = self.order.target.model_copy(update={"precision": "fp32"})
        plain = replace(self, order=replace(self.order, target=target), gauge=None)
        arch = chosen.point.arch
        (record,), _ = plain._records(
            [self.order.subject.space.network(arch)], [plain._file(chosen.subnet, arch)], [chosen.point]
        )
        return record

    def _file(self, subnet: Subnet, arch: Arch) -> bytes:
        subject = self.order.subject
        images = subject.calibration(arch) if self.order.target.precision == "int8" else None
        return model_file(subject.space.network(arch), subnet.weights(), self.order.target, images)

    def _records(
        self, networks: list[Network], files: list[bytes], points: list[Point]
    ) -> tuple[list[Measurement], LevelNow | None]:
        """Measurements, and how fast the device was in their rounds."""
        items = [MeasureItem(n, f, p.arch, "network") for n, f, p in zip(networks, files, points, strict=True)]
        anchor = self.gauge.items if self.gauge else []
        records = self.fleet.measure(self.order.target, [*items, *anchor], self.order.protocol, self.progress)
        found, anchored = records[: len(items)], records[len(items) :]
        level = self.gauge.read(anchored, found) if self.gauge else None
        self.level = level.widened(FORECAST) if level else None
        return found, level
