"""The networks that a request chooses from, loaded."""

from __future__ import annotations

from dataclasses import replace

from ofa_deploy.accuracy import load_predictor
from ofa_deploy.config import CellChoice
from ofa_deploy.deploy.cell_networks import CellFamily, family_subject
from ofa_deploy.deploy.request import Source
from ofa_deploy.deploy.subject import Subject, find_supernet, load_subject, random_subject
from ofa_deploy.differentiable.found_cells import read_genotype, read_recipe, search_course
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import load_space
from ofa_deploy.store import Workspace
from ofa_deploy.training import load_data


def load_source(source: Source, workspace: Workspace, seed: int = 0, tell: Tell = silent) -> Subject:
    """Load a supernet with its images and its predictor, or a space with random weights, or cells.

    Args:
        seed: of random weights.

    Raises:
        UsageError: there is no such file, space or predictor, or the file is damaged.
    """
    if source.cells:
        return cell_family(source.cells, workspace, seed)
    predictor = load_predictor(workspace, source.accuracy) if source.accuracy else None
    if source.space:
        subject: Subject = random_subject(load_space(source.space), seed, predictor)
    else:
        file = find_supernet(workspace, source.supernet)
        tell(f"supernet: {file}", {})
        subject = load_subject(workspace, file, lambda p: tell("evaluate subnets", p), predictor=predictor)
    if predictor:
        subject.accuracy(subject.codec)  # a predictor of another space must fail now, not after measuring
    return subject


def cell_family(choice: CellChoice, workspace: Workspace, seed: int = 0) -> CellFamily:
    """The networks of cells in every size, with random weights; ``trained`` makes a network of one of them."""
    recipe = read_recipe(choice.config)
    source = choice.genotype or workspace.root / "darts" / recipe.name
    genotype = read_genotype(source)
    data = load_data(recipe.data)
    single = recipe.space(genotype, data.in_channels, data.num_classes)
    channels, cells = sorted(set(choice.channels)) or single.channels, sorted(set(choice.cells)) or single.cells
    family = family_subject(replace(single, channels=tuple(channels), cells=tuple(cells)), seed)
    family.found, family.options = search_course(source), choice.options
    family.to_train = None if choice.random_weights else recipe
    return family
