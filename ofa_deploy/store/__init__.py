"""The workspace and its database: devices, jobs, measurements, evaluations, artefacts; kept, not understood."""

from ofa_deploy.store.access import Access
from ofa_deploy.store.database import Encoded
from ofa_deploy.store.jobs import Jobs
from ofa_deploy.store.rows import condition_hash
from ofa_deploy.store.runs import Runs, StaleRun
from ofa_deploy.store.schema import utc_now
from ofa_deploy.store.store import Store
from ofa_deploy.store.workspace import Workspace

__all__ = ["Access", "Encoded", "Jobs", "Runs", "StaleRun", "Store", "Workspace", "condition_hash", "utc_now"]
