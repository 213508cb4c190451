"""`quickstart` in fresh folders while busy loops come and go: does it always end well, and is what it says true?

    python -m tests.benchmarks.busy_quickstart --runs 20 --loops 4 --ordinary

For each run, one line: the time, the exit code, how many loops there were, whether every report is true of its own
measurement, and whether no larger budget got a network that is believed worse. Ends with 1 where any of it failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.neighbours import coming_and_going, ordinary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--ordinary", action="store_true")
    options = parser.parse_args()
    if options.ordinary:
        ordinary()
    good = 0
    for run in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            found = once(Path(folder), options.loops, run)
        good += found["code"] == 0 and found["true"] and found["monotone"]
        print(json.dumps(found), flush=True)
    print(f"{good} of {options.runs} runs ended well")
    return int(good < options.runs)


def once(folder: Path, loops: int, seed: int) -> dict[str, Any]:
    """One run in a fresh folder."""
    began = time.monotonic()
    with coming_and_going(loops, seed) as counts:
        command = [sys.executable, "-m", "ofa_deploy", "quickstart", "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = {"seconds": round(time.monotonic() - began, 1), "code": done.returncode, "loops": counts}
    if done.returncode:
        return {**found, "true": False, "monotone": False, "said": done.stderr.strip().splitlines()[-1:]}
    reports = json.loads(done.stdout)["reports"]
    believed = [report["accuracy"]["posterior"] for report in sorted(reports, key=lambda r: r["budget"]["max_ms"])]
    return {
        **found,
        "true": all(r["latency"]["fits"] and _fits(r) for r in reports),
        "monotone": all(low <= high + 1e-9 for low, high in pairwise(believed)),
        "budgets": [report["budget"]["max_ms"] for report in reports],
        "measured": [report["latency"]["measured_ms"]["p50"] for report in reports],
        "level": [report["level"] and round(report["level"]["factor"], 3) for report in reports],
        "believed": [round(value, 4) for value in believed],
    }


def _fits(report: dict[str, Any]) -> bool:
    return bool(report["latency"]["measured_ms"][report["budget"]["statistic"]] <= report["budget"]["max_ms"])


if __name__ == "__main__":
    sys.exit(main())
