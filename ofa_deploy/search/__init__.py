"""The best subnet under constraints. No I/O: latency and accuracy come in as functions of whole populations."""

from ofa_deploy.config import GRADIENT, Constraints, Plan
from ofa_deploy.search.compare import Compared, Interval, compare
from ofa_deploy.search.edge import Edge, edge_of
from ofa_deploy.search.engine import AskTell, Point, SearchResult, Step, planned, search
from ofa_deploy.search.feasible import fastest, nearest_feasible
from ofa_deploy.search.front import FrontPoint, Fronts, find_fronts, pick
from ofa_deploy.search.gate import Gate, Verdicts
from ofa_deploy.search.gradient import Belief, Gradient
from ofa_deploy.search.problem import Assessment, Device, Latency, Problem
from ofa_deploy.search.strategies import STRATEGIES

__all__ = [
    "GRADIENT",
    "STRATEGIES",
    "AskTell",
    "Assessment",
    "Belief",
    "Compared",
    "Constraints",
    "Device",
    "Edge",
    "FrontPoint",
    "Fronts",
    "Gate",
    "Gradient",
    "Interval",
    "Latency",
    "Plan",
    "Point",
    "Problem",
    "SearchResult",
    "Step",
    "Verdicts",
    "compare",
    "edge_of",
    "fastest",
    "find_fronts",
    "nearest_feasible",
    "pick",
    "planned",
    "search",
]
