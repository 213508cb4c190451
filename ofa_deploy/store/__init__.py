"""The workspace and its database: devices, jobs, measurements, evaluations, artefacts; kept, not understood."""

from ofa_deploy.arch_record import ArchFacts
from ofa_deploy.store.access import Access
from ofa_deploy.store.database import Encoded
from ofa_deploy.store.jobs import Jobs
from ofa_deploy.store.rows import Record, condition_hash
from ofa_deploy.store.runs import Runs, StaleRun
from ofa_deploy.store.schema import utc_now
from ofa_deploy.store.store import Store
from ofa_deploy.store.views import (
    Artefact,
    Device,
    Evaluation,
    ItemFailure,
    JobState,
    JobSummary,
    JobTimes,
    KnownArch,
    MeasuredCondition,
    MeasuredDevice,
    MeasuredNetwork,
    NewestRow,
    NewItem,
    Run,
    RunItem,
    RunUnderWay,
    Token,
)
from ofa_deploy.store.workspace import Workspace

__all__ = [
    "Access",
    "ArchFacts",
    "Artefact",
    "Device",
    "Encoded",
    "Evaluation",
    "ItemFailure",
    "JobState",
    "JobSummary",
    "JobTimes",
    "Jobs",
    "KnownArch",
    "MeasuredCondition",
    "MeasuredDevice",
    "MeasuredNetwork",
    "NewItem",
    "NewestRow",
    "Record",
    "Run",
    "RunItem",
    "RunUnderWay",
    "Runs",
    "StaleRun",
    "Store",
    "Token",
    "Workspace",
    "condition_hash",
    "utc_now",
]
