"""The YAML documents as pydantic models; an unknown key is an error that names the file and the line."""

from ofa_deploy.config.asked import (
    GRADIENT,
    CellChoice,
    Constraints,
    OtherConstraints,
    Plan,
    PlanTerms,
    known_strategy,
    term,
)
from ofa_deploy.config.data_config import Augmentation, DataConfig, Normalisation
from ofa_deploy.config.shipped_files import find_file, shipped_folder
from ofa_deploy.config.space_document import ElasticDocument, SpaceDocument
from ofa_deploy.config.target_profile import BROWSER, LOCAL, PUBLISHED, SIMULATED, Precision, TargetProfile
from ofa_deploy.config.train_recipe import AccuracyConfig, PhaseConfig, Proxy, TrainRecipe
from ofa_deploy.config.yaml_document import (
    Bound,
    Document,
    Fraction,
    Positive,
    Some,
    key_lines,
    line_of,
    read_document,
)

__all__ = [
    "BROWSER",
    "GRADIENT",
    "LOCAL",
    "PUBLISHED",
    "SIMULATED",
    "AccuracyConfig",
    "Augmentation",
    "Bound",
    "CellChoice",
    "Constraints",
    "DataConfig",
    "Document",
    "ElasticDocument",
    "Fraction",
    "Normalisation",
    "OtherConstraints",
    "PhaseConfig",
    "Plan",
    "PlanTerms",
    "Positive",
    "Precision",
    "Proxy",
    "Some",
    "SpaceDocument",
    "TargetProfile",
    "TrainRecipe",
    "find_file",
    "key_lines",
    "known_strategy",
    "line_of",
    "read_document",
    "shipped_folder",
    "term",
]
