"""Accuracies of many subnets, and the predictors that know them. Knows no latency and no device.

``campaign`` evaluates subnets, for which it needs torch; it is not imported here, so that a search by prediction alone
starts without it.
"""

from ofa_deploy.accuracy.objective import (
    Predictor,
    check_name,
    keep_predictor,
    load_predictor,
    objective,
    read_predictor,
)
from ofa_deploy.accuracy.predictor import AccuracyPredictor
from ofa_deploy.accuracy.published_predictor import PublishedPredictor, import_predictor

__all__ = [
    "AccuracyPredictor",
    "Predictor",
    "PublishedPredictor",
    "check_name",
    "import_predictor",
    "keep_predictor",
    "load_predictor",
    "objective",
    "read_predictor",
]
