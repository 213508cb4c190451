"""Networks of cells on a device: their cells' latencies, and which number of cells and channels fits a budget.

They share no weights: the size is chosen first, by prediction and measurement, and then the network of that size is
trained. A family of cell networks answers the questions that this package asks of a space and an arch (``network``,
``largest``, ``to_json``, ``key``, ``resolution``), and so takes their places, which two casts below say.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from scipy.special import ndtri

from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.differentiable import DartsRecipe
from ofa_deploy.differentiable.retraining import TrainedNetwork
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.fleet.auditing import compared, evenly
from ofa_deploy.fleet.gauge import SHARED, Gauge
from ofa_deploy.fleet.latency_models import export_table, load_table
from ofa_deploy.fleet.profiling import Progress, network_item, unit_item
from ofa_deploy.latency import LatencyModel, LatencyTable
from ofa_deploy.search import Constraints, Point, SearchResult
from ofa_deploy.space import (
    Arch,
    CellArch,
    CellSpace,
    PopulationCodec,
    SearchSpace,
    network_macs,
    network_memory,
    network_params,
)
from ofa_deploy.space.cells import distinct_units
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet
from ofa_deploy.training import trained_data

NETWORKS = 8  # whole networks that are measured beside the cells
FINALISTS = 4


@dataclass
class CellSubject(Subject):
    """A genotype's networks: a family of sizes with random weights, or one that is trained.

    Attributes:
        trained: the weights; None for random ones.
        options: those by which a command names the family.
        sizes: of a trained network, the family that it was chosen from.
    """

    trained: TrainedNetwork | None = None
    options: dict[str, object] = field(default_factory=dict)
    sizes: CellSpace | None = None

    @property
    def family(self) -> CellSpace:
        """The networks."""
        return cast(CellSpace, self.space)

    @property
    def audit_options(self) -> dict[str, object]:
        """Which family."""
        return self.options

    @property
    def random_weights(self) -> bool:
        """Whether nothing was trained."""
        return self.trained is None

    def subnet(self, arch: Arch) -> Subnet:
        """A network as a static module, in evaluation mode."""
        return super().subnet(arch) if self.trained is None else self.trained.subnet

    def fastest(self, model: LatencyModel, confidence: float) -> tuple[Arch, float]:
        """The network with the lowest upper bound, and that bound in ms."""
        archs, _, _, upper = self._predicted(model, confidence)
        return cast(Arch, archs[upper.argmin()]), float(upper.min())

    def _predicted(
        self, model: LatencyModel, confidence: float
    ) -> tuple[list[CellArch], list[Network], np.ndarray, np.ndarray]:
        """Of all sizes: the archs, the networks, and the means and upper bounds of their latencies in ms."""
        archs = self.family.archs
        networks = [self.family.network(arch) for arch in archs]
        mean, std = model.predict(networks)
        return archs, networks, mean, mean + ndtri(confidence) * std

    def search(self, model: LatencyModel, target: TargetProfile, constraints: Constraints) -> SearchResult:
        """The largest networks, by MACs, that meet the constraints: all sizes are looked at.

        Raises:
            InfeasibleBudget: none does; names the fastest.
            UsageError: a bound that is not for cells.
        """
        started = time.monotonic()
        archs, networks, mean, upper = self._predicted(model, constraints.confidence)
        macs = np.array([network_macs(network) for network in networks], dtype=float)
        counts = {
            "ms": upper,
            "macs": macs,
            "params": np.array([network_params(network) for network in networks], dtype=float),
            "memory_mb": np.array([network_memory(n, target.batch, target.precision) / 1e6 for n in networks]),
        }
        fits = _within(constraints, counts)
        if not fits.any():
            fastest = int(upper.argmin())
            raise InfeasibleBudget(
                f"no network of {self.name} meets all constraints: the fastest, {archs[fastest].cells} cells of "
                f"{archs[fastest].channels} channels, needs {upper[fastest]:.4g} ms and has "
                f"{macs[fastest] / 1e6:.4g} M MACs; ask for more, or for smaller --cells and --channels"
            )
        points = [
            Point(cast(Arch, archs[i]), macs[i] / macs.max(), float(mean[i]), float(upper[i]))
            for i in sorted(np.flatnonzero(fits), key=lambda i: -macs[i])
        ]
        seconds = time.monotonic() - started
        return SearchResult(
            points[0], points[:FINALISTS], [], len(archs), seconds, "all", points[0].accuracy, True, trace=[]
        )


def _within(constraints: Constraints, counts: Mapping[str, np.ndarray]) -> np.ndarray:
    fits = np.ones(len(counts["ms"]), dtype=bool)
    for name, bound in constraints.bounds.items():
        side, _, what = name.partition("_")
        if what not in counts:
            raise UsageError(
                f"--{name.replace('_', '-')} is not for networks of cells; bound ms, macs, params or memory"
            )
        fits &= counts[what] <= bound if side == "max" else counts[what] >= bound
    return fits


def family_subject(space: CellSpace, seed: int = 0) -> CellSubject:
    """All sizes of a genotype's network, with random weights."""
    digest = hashlib.sha256(json.dumps([space.to_json(), seed], sort_keys=True).encode()).hexdigest()
    return CellSubject(cast(SearchSpace, space), f"{space.name} (random weights)", digest, seed=seed)


def trained_subject(recipe: DartsRecipe, trained: TrainedNetwork) -> CellSubject:
    """A trained network with its data."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.subnet.weights().items()):
        digest.update(name.encode() + value.tobytes())
    subject = CellSubject(cast(SearchSpace, trained.space), recipe.name, digest.hexdigest(), trained=trained)
    subject.recipe = recipe.steps(recipe.train, recipe.train.epochs)
    subject.data = trained_data(recipe.data, trained.summary)
    return subject


def ready_cells(
    fleet: Fleet | None,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace,
    statistic: str = "p50",
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> tuple[LatencyModel, PopulationCodec]:
    """The target's latency model, once all cells of a family and some of its networks are measured.

    Args:
        fleet: None forbids to measure.

    Returns:
        The model; the codec that other spaces have beside it is of no use here.

    Raises:
        OpNotProfiled: a block was never measured, and measuring is forbidden.
    """
    family = cast(CellSpace, space)
    networks = {arch: family.network(arch) for arch in family.archs}
    table = load_table(workspace, target)
    missing = [unit for unit in distinct_units(networks.values()) if unit.op.key not in table.rows]
    if fleet is None:
        table.require(unit.op.key for unit in missing)
    ordered = sorted(networks, key=lambda arch: network_macs(networks[arch]))
    fresh = [ordered[i] for i in evenly(len(ordered), NETWORKS) if not _known(table, networks[ordered[i]])]
    if fleet is not None and (missing or fresh):
        items = [unit_item(unit.network, target) for unit in missing]
        items += [network_item(networks[arch], cast(Arch, arch), target) for arch in fresh]
        fleet.measure(target, items, protocol or Protocol(), progress)
        table = load_table(workspace, target)
        export_table(workspace, table)
    return LatencyModel(table, statistic=statistic), cast(PopulationCodec, None)


def audit_cells(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    family: CellSpace,
    networks: int = 40,
    statistic: str = "p50",
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The audit of a family's predictions, on sizes that were never measured, evenly spread over predicted latencies.

    Args:
        networks: how many to measure at most; they become evidence for later predictions.

    Returns:
        See ``fleet.auditing.compared``; the family's ``genotype`` beside that.

    Raises:
        UsageError: every size was measured already.
    """
    fleet.fetch(target)
    model = ready_cells(fleet, workspace, target, cast(SearchSpace, family), statistic, protocol, progress)[0]
    fresh = [arch for arch in family.archs if family.network(arch).key not in model.table.networks]
    if not fresh:
        raise UsageError(
            f"all {len(family.archs)} networks of {family.name} were measured already: give more --cells and --channels"
        )
    order = model.predict([family.network(arch) for arch in fresh])[0].argsort(kind="stable")
    archs = [cast(Arch, fresh[i]) for i in order[evenly(len(fresh), networks)]]
    space = cast(SearchSpace, family)
    gauge = Gauge(workspace, target, space, model, SHARED)
    answer = compared(fleet, target, model, space, archs, protocol, progress, gauge)
    return {**answer, "genotype": family.genotype.to_json()}


def _known(table: LatencyTable, network: Network) -> bool:
    """Whether a whole network was measured, and as the cells that it is seen as here."""
    row = table.networks.get(network.key)
    return row is not None and list(row.ops) == network.unit_keys
