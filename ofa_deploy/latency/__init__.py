"""Latency tables with their provenance, and the model that says how long a network takes and how sure that is."""

from ofa_deploy.latency.audit import audit_statistics, audit_summary
from ofa_deploy.latency.model import LatencyModel, SpaceLatency, leave_one_out
from ofa_deploy.latency.table import LatencyTable, Row

__all__ = ["LatencyModel", "LatencyTable", "Row", "SpaceLatency", "audit_statistics", "audit_summary", "leave_one_out"]
