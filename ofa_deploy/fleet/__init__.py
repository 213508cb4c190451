"""Measuring on devices: the HTTP server with its queue, the client, the agent here; knows no search, no training."""

from ofa_deploy.fleet.client import Client
from ofa_deploy.fleet.items import MeasureItem
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.fleet.targets import in_precision, known_targets, resolve_target

__all__ = ["Client", "Fleet", "MeasureItem", "Protocol", "in_precision", "known_targets", "resolve_target"]
