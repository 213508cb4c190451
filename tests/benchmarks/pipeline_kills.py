"""A pipeline that is killed again and again, beside one that is not.

    python tests/benchmarks/pipeline_kills.py pipelines/ci.yaml --kills 10 -o kills.json

SIGKILL comes at random moments of the run, to its whole process group; the last resume must end well. Bundles of
simulated targets must then be, byte for byte, those of the run that nobody killed; all bundles must verify.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ofa_deploy.export import verify_bundle


def command(pipeline: Path, workspace: Path, parameters: list[str]) -> list[str]:
    """What is run; gates are not what is tried here."""
    words = [sys.executable, "-m", "ofa_deploy", "--workspace", str(workspace), "run", str(pipeline)]
    return [*words, *(word for one in parameters for word in ("-p", one)), "--json"]


def run(words: list[str], log: Path, kill_after: float | None = None) -> tuple[int | None, float]:
    """The exit code, None where it was killed, and the seconds that it took."""
    began = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
        try:
            code: int | None = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    return code, time.monotonic() - began


def compared(whole: Path, killed: Path) -> list[dict[str, Any]]:
    """Of every bundle of the killed run: what is wrong with it, and of a simulated target whether it equals the whole
    run's. Real targets' tables, and so their budgets, differ from run to run."""
    found = []
    for file in sorted(killed.glob("*/report.json")):
        bundle, other = file.parent, whole / file.parent.name
        simulated = json.loads(file.read_text())["target"]["simulated"]
        names = {path.name for folder in (bundle, other) if folder.is_dir() for path in folder.iterdir()}
        equal = all(_content(bundle / name) == _content(other / name) for name in names) if simulated else None
        found.append({"bundle": bundle.name, "equal": equal, "problems": verify_bundle(bundle)})
    return found


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> None:
    """Run both, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("-p", "--parameter", action="append", default=[])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    moments = random.Random(asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    name = asked.pipeline.stem
    code, seconds = run(command(asked.pipeline, folder / "whole", asked.parameter), folder / "whole.log")
    print(f"undisturbed: {seconds:.0f} s, exit code {code}; logs in {folder}", flush=True)
    kills = []
    while len(kills) < asked.kills:
        after = moments.uniform(0.02, 0.4) * seconds
        ended, _ = run(command(asked.pipeline, folder / "killed", asked.parameter), folder / "killed.log", after)
        if ended is not None:
            break  # it was done before
        kills.append(round(after, 1))
        print(f"killed after {after:.1f} s", flush=True)
    last, _ = run(command(asked.pipeline, folder / "killed", asked.parameter), folder / "killed.log")
    bundles = compared(folder / "whole" / "bundles" / name, folder / "killed" / "bundles" / name)
    answer = {"pipeline": name, "seconds": seconds, "exit_codes": [code, last], "kills_s": kills, "bundles": bundles}
    complete = len(bundles) == len(list((folder / "whole" / "bundles" / name).glob("*/report.json"))) > 0
    answer["passed"] = complete and not any(one["problems"] or one["equal"] is False for one in bundles)
    text = json.dumps(answer, indent=1)
    if asked.output:
        asked.output.write_text(text + "\n")
    print(text)
    sys.exit(0 if answer["passed"] else 1)


if __name__ == "__main__":
    main()
