"""The best subnet under constraints. No I/O: latency and accuracy come in as functions of whole populations."""

from ofa_deploy.search.evolution import SearchResult, search
from ofa_deploy.search.problem import Assessment, Constraints, Latency, Problem

__all__ = ["Assessment", "Constraints", "Latency", "Problem", "SearchResult", "search"]
