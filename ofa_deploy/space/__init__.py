"""What can be built: spaces, subnets, and their counts. numpy only; knows no torch and no device."""

from ofa_deploy.blocks.kinds import make_divisible
from ofa_deploy.blocks.network_counts import (
    network_macs,
    network_memory,
    network_params,
    op_counts,
    unit_counts,
)
from ofa_deploy.space.cells import CellArch, CellSpace
from ofa_deploy.space.chain_arch import ChainArch
from ofa_deploy.space.elastic import frozen, largest_alone, make_elastic
from ofa_deploy.space.family import Arch, Family, Gene, Place
from ofa_deploy.space.genotype import Genotype
from ofa_deploy.space.handpicked import MULTIPLIERS, families, handpicked, handpicked_subnet, picked_name
from ofa_deploy.space.population import GENE, Population, PopulationCodec
from ofa_deploy.space.presets import PRESETS, load_space
from ofa_deploy.space.scaling import Scaling, compound, grid, rescale
from ofa_deploy.space.search_space import SearchSpace
from ofa_deploy.space.stage_spec import StageSpec
from ofa_deploy.space.supernet_weights import elastic_kernels, supernet_params
from ofa_deploy.space.totals import arch_facts

__all__ = [
    "GENE",
    "MULTIPLIERS",
    "PRESETS",
    "Arch",
    "CellArch",
    "CellSpace",
    "ChainArch",
    "Family",
    "Gene",
    "Genotype",
    "Place",
    "Population",
    "PopulationCodec",
    "Scaling",
    "SearchSpace",
    "StageSpec",
    "arch_facts",
    "compound",
    "elastic_kernels",
    "families",
    "frozen",
    "grid",
    "handpicked",
    "handpicked_subnet",
    "largest_alone",
    "load_space",
    "make_divisible",
    "make_elastic",
    "network_macs",
    "network_memory",
    "network_params",
    "op_counts",
    "picked_name",
    "rescale",
    "supernet_params",
    "unit_counts",
]
