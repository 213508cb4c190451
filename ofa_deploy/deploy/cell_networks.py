"""Networks of cells as what is deployed: a family of sizes with random weights, or one network that is trained.

They share no weights: the size is chosen first, by prediction and measurement, and then the network of that size is
trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from ofa_deploy.deploy.subject import Subject
from ofa_deploy.differentiable import DartsRecipe, train_network
from ofa_deploy.differentiable.retraining import TrainedNetwork
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import Arch, CellSpace
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet
from ofa_deploy.training import trained_data


@dataclass
class CellSubject(Subject):
    """A genotype's networks: a family of sizes with random weights, or one that is trained.

    Attributes:
        trained: the weights; None for random ones.
        options: those by which a command names the family.
        to_train: the recipe by which the network of the size that fits is trained; None where the weights stay random.
    """

    space: CellSpace
    trained: TrainedNetwork | None = None
    options: dict[str, object] = field(default_factory=dict)
    to_train: DartsRecipe | None = None

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


def family_subject(space: CellSpace, seed: int = 0) -> CellSubject:
    """All sizes of a genotype's network, with random weights."""
    digest = hashlib.sha256(json.dumps([space.to_json(), seed], sort_keys=True).encode()).hexdigest()
    return CellSubject(space, f"{space.name} (random weights)", digest, seed=seed)


def trained_subject(recipe: DartsRecipe, trained: TrainedNetwork) -> CellSubject:
    """A trained network with its data."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.subnet.weights().items()):
        digest.update(name.encode() + value.tobytes())
    subject = CellSubject(trained.space, recipe.name, digest.hexdigest(), trained=trained)
    subject.recipe = recipe.steps(recipe.train, recipe.train.epochs)
    subject.data = trained_data(recipe.data, trained.summary)
    return subject


def train_size(family: CellSubject, arch: Arch, workspace: Workspace, tell: Tell = silent) -> CellSubject:
    """The network of one size, trained by the family's recipe; a training that was interrupted goes on.

    Raises:
        UsageError: the family has no recipe.
    """
    recipe, genotype = family.to_train, family.space.genotype
    if recipe is None:
        raise UsageError(f"{family.name}: there is no recipe to train it by")
    size = {name: arch.to_json()[name] for name in ("cells", "channels")}
    tell(f"train the network that fits: {size['cells']} cells of {size['channels']} channels", {})
    fitting = recipe.model_copy(update={"train": recipe.train.model_copy(update=size)})
    digest = hashlib.sha256(json.dumps(genotype.to_json()).encode()).hexdigest()[:8]
    folder = workspace.root / "darts" / recipe.name / f"network-{size['cells']}x{size['channels']}-{digest}"
    trained = train_network(fitting, genotype, folder, True, lambda p: tell(f"train {recipe.name}", p))
    subject = trained_subject(fitting, trained)
    subject.found, subject.options, subject.sizes = family.found, family.options, family.space
    return subject
