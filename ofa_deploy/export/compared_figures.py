"""Whether a report's figures are those that were computed again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from ofa_deploy.json_types import JSON

# How far a figure may be from its recomputation, relative and absolute: records round latencies to seven digits, which
# shows in differences of them, and searches compute upper bounds in fp32.
TOLERANCE = (1e-5, 1e-12)
TOLERANCES = {
    "cov": (1e-3, 1e-6),
    "se": (1e-3, 1e-6),
    "error_pct": (1e-5, 1e-3),
    "upper_ms": (1e-3, 1e-12),
    "residual_ms": (1e-3, 1e-6),
}


def differences(report: JSON, figures: Mapping[str, JSON]) -> list[str]:
    """Figures that ``report.json`` lacks or says otherwise, one line each.

    Args:
        figures: by their dotted paths.
    """
    problems = []
    for path, value in sorted(figures.items()):
        try:
            reported = _lookup(report, path)
        except (LookupError, TypeError, ValueError):  # not even what should hold it is there
            problems.append(f"report.json has no {path}; its evidence gives {_shown(value)}")
            continue
        if not _same(reported, value, TOLERANCES.get(path.rsplit(".", 1)[-1], TOLERANCE)):
            problems.append(f"report.json says {path} is {_shown(reported)}, its evidence gives {_shown(value)}")
    return problems


def _lookup(tree: JSON, path: str) -> JSON:
    for key in path.split("."):
        if isinstance(tree, list):
            tree = tree[int(key)]
        elif isinstance(tree, dict):
            tree = tree[key]
        else:
            raise LookupError(key)
    return tree


def _same(reported: JSON, value: JSON, tolerance: tuple[float, float]) -> bool:
    if isinstance(reported, bool) or isinstance(value, bool):
        return reported == value
    if not isinstance(reported, (int, float)) or not isinstance(value, (int, float)):
        return reported == value
    return math.isclose(reported, value, rel_tol=tolerance[0], abs_tol=tolerance[1])


def _shown(value: JSON) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
