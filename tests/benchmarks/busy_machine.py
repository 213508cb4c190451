"""What predictions and undisturbed latencies are worth on a machine that other programs use.

    python -m tests.benchmarks.busy_machine --space ofa_mbv3_w1.0 --resolution 160 --loops 0 2 4 --networks 30

Profiles a space beside the first number of busy loops, then audits it beside each of the numbers, at the level of the
audit's own rounds. Prints for each: the bias and the mean error of predictions, what they would have been at the level
of the profile, how many measurements the 95 % bound covered, how well measurements repeat themselves, the level that
was found, and by how much the anchor's undisturbed latencies differ from those of the profile (median). Give
``--loops 4 0`` for the other way round. With ``--ordinary`` the agent has no right to raise its priority, and competes
with the loops as an ordinary user's would.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.fleet.auditing import audit
from ofa_deploy.fleet.profiling import profile
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.latency_models import load_table
from ofa_deploy.space import load_space
from ofa_deploy.store import Workspace
from tests.benchmarks.neighbours import busy, ordinary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fashion_28")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--loops", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--cap-s", type=float, default=120.0)
    parser.add_argument("--ordinary", action="store_true")
    parser.add_argument("--workspace", type=Path, help="keep the measurements in this new folder")
    options = parser.parse_args()
    if options.ordinary:
        ordinary()
    space, target, protocol = load_space(options.space), read_profile("local"), Protocol(cap_s=options.cap_s)
    if options.resolution:
        space = space.with_resolutions((options.resolution,))
    with (
        tempfile.TemporaryDirectory() as folder,
        Workspace.open(options.workspace or Path(folder)) as workspace,
        Fleet.open(workspace) as fleet,
    ):
        with busy(options.loops[0]):
            profile(fleet, workspace, target, space, protocol=protocol)
        then = {key: row.best for key, row in load_table(workspace, target).networks.items()}
        for seed, loops in enumerate(options.loops):
            with busy(loops):
                found = audit(fleet, workspace, target, space, options.networks, seed, protocol=protocol).to_json()
            records = [r for r in workspace.store.measurements("local") if r["kind"] == "anchor"]
            anchored = {r["key"]: r["best"] for r in records}  # the newest of each
            shown = {
                name: found[name] for name in ("bias", "mape", "coverage_95", "repeatability", "as_profiled", "level")
            }
            shown["undisturbed"] = float(np.median([ms / then[key] for key, ms in anchored.items()]))
            print(json.dumps({"cores": os.cpu_count(), "loops": loops, **shown}), flush=True)


if __name__ == "__main__":
    main()
