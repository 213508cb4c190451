"""Accuracies of many subnets, and the predictor that is fitted on them. Knows no latency and no device."""

from ofa_deploy.accuracy.campaign import Campaign, follow, let_go, run_campaign
from ofa_deploy.accuracy.predictor import AccuracyPredictor

__all__ = ["AccuracyPredictor", "Campaign", "follow", "let_go", "run_campaign"]
