"""Networks of cells as what is deployed: a family of sizes with random weights, or one network that is trained.

They share no weights: the size is chosen first, by prediction and measurement, and then the network of that size is
trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from ofa_deploy.deploy.subject import RandomWeights, Subject
from ofa_deploy.differentiable import DartsRecipe, train_network
from ofa_deploy.differentiable.retraining import TrainedNetwork
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import Arch, CellSpace
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet
from ofa_deploy.training import trained_data


@dataclass
class CellFamily(RandomWeights):
    """A genotype's networks in several sizes, with random weights.

    Attributes:
        options: those by which a command names the family.
        to_train: the recipe by which the network of the size that fits is trained; None where the weights stay random.
    """

    space: CellSpace
    options: dict[str, object] = field(default_factory=dict)
    to_train: DartsRecipe | None = None

    @property
    def audit_options(self) -> dict[str, object]:
        """Which family."""
        return self.options

    def finished(self, arch: Arch, workspace: Workspace, tell: Tell = silent) -> TrainedCells | None:
        """The network of one size, trained by the recipe; a training that was interrupted goes on."""
        recipe, genotype = self.to_train, self.space.genotype
        if recipe is None:
            return None
        size = {name: arch.to_json()[name] for name in ("cells", "channels")}
        tell(f"train the network that fits: {size['cells']} cells of {size['channels']} channels", {})
        fitting = recipe.model_copy(update={"train": recipe.train.model_copy(update=size)})
        digest = hashlib.sha256(json.dumps(genotype.to_json()).encode()).hexdigest()[:8]
        folder = workspace.root / "darts" / recipe.name / f"network-{size['cells']}x{size['channels']}-{digest}"
        trained = train_network(fitting, genotype, folder, True, lambda p: tell(f"train {recipe.name}", p))
        return trained_cells(fitting, trained, self)


@dataclass
class TrainedCells(Subject):
    """A network of cells that was trained.

    Attributes:
        trained: the network.
        options: those by which a command names the family that it was chosen from.
    """

    space: CellSpace
    trained: TrainedNetwork = field(kw_only=True)
    options: dict[str, object] = field(default_factory=dict)

    @property
    def audit_options(self) -> dict[str, object]:
        """Which family."""
        return self.options

    def subnet(self, arch: Arch) -> Subnet:
        """The network as a static module, in evaluation mode."""
        return self.trained.subnet


def family_subject(space: CellSpace, seed: int = 0) -> CellFamily:
    """All sizes of a genotype's network, with random weights."""
    digest = hashlib.sha256(json.dumps([space.to_json(), seed], sort_keys=True).encode()).hexdigest()
    return CellFamily(space, f"{space.name} (random weights)", digest, seed=seed)


def trained_cells(recipe: DartsRecipe, trained: TrainedNetwork, family: CellFamily) -> TrainedCells:
    """A trained network with its data, and the family that its size was chosen from."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.subnet.weights().items()):
        digest.update(name.encode() + value.tobytes())
    return TrainedCells(
        trained.space,
        recipe.name,
        digest.hexdigest(),
        recipe=recipe.steps(recipe.train, recipe.train.epochs),
        data=trained_data(recipe.data, trained.summary),
        found=family.found,
        sizes=family.space,
        trained=trained,
        options=family.options,
    )
