"""Search by gradient: cells whose edges mix all operations, the guards against collapse, derivation and retraining."""

from ofa_deploy.differentiable.cell_search import search_cells
from ofa_deploy.differentiable.derivation import derive, random_genotype
from ofa_deploy.differentiable.one_shot import search_genotypes
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.differentiable.retraining import load_network, train_network

__all__ = [
    "DartsRecipe",
    "derive",
    "load_network",
    "random_genotype",
    "search_cells",
    "search_genotypes",
    "train_network",
]
