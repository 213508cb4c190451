"""Latency tables with their provenance, and the model that says how long a network takes and how sure that is."""

from ofa_deploy.latency.audit_statistics import (
    AuditedNetwork,
    AuditStatistics,
    AuditSummary,
    audit_statistics,
    audit_summary,
    confidence_interval,
)
from ofa_deploy.latency.changes import aligned, difference, difference_in_time
from ofa_deploy.latency.condition import Condition, differences, full_condition
from ofa_deploy.latency.csv_tables import read_csv, write_csv
from ofa_deploy.latency.importers import as_records, read_ofa_tables, read_table
from ofa_deploy.latency.left_out import leave_one_out, left_out
from ofa_deploy.latency.measurement import Measurement
from ofa_deploy.latency.model import LatencyModel, SpaceLatency
from ofa_deploy.latency.table import LatencyTable, Row

__all__ = [
    "AuditStatistics",
    "AuditSummary",
    "AuditedNetwork",
    "Condition",
    "LatencyModel",
    "LatencyTable",
    "Measurement",
    "Row",
    "SpaceLatency",
    "aligned",
    "as_records",
    "audit_statistics",
    "audit_summary",
    "confidence_interval",
    "difference",
    "difference_in_time",
    "differences",
    "full_condition",
    "leave_one_out",
    "left_out",
    "read_csv",
    "read_ofa_tables",
    "read_table",
    "write_csv",
]
