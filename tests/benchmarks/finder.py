"""The search against once-for-all's evolutionary finder, with their accuracy predictor and their Note10 tables.

    python tests/benchmarks/finder.py [--seeds 5] [--time-limit 5] [--finder 30 …] [--budgets 15 20 …]

Reads the published files from ``../shared/anchors/ofa``. The finder's answers are those kept there; ``--finder MS …``
runs it here and now for a comparison of times (it needs the packages ``ofa`` and ``tqdm``, and up to a minute a
budget), and with it ``ofa-deploy search``, whose time is that of the whole command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import yaml

from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency.importers import read_ofa_tables
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.space import Population, PopulationCodec, load_space
from ofa_deploy.training.torchvision_shim import torchvision_module

ANCHORS = Path(__file__).parents[3] / "shared" / "anchors" / "ofa"
SLOTS, CHOICES, FIRST_SIZE = 20, 3, 112  # the predictor's features: one-hot kernels, expands, (resolution − 112) / 16
RESOLUTIONS = (160, 176, 192, 208, 224)
BEST = {15.0: 0.7880, 20.0: 0.8079, 25.0: 0.8222, 30.0: 0.8315, 35.0: 0.8368, 50.0: 0.8515}  # best known answers
NEAR = 0.001
OTHERS = [17.0, 22.0, 40.0, 60.0]


def published_accuracy(codec: PopulationCodec) -> Callable[[Population], np.ndarray]:
    """Once-for-all's accuracy predictor on populations."""
    state = torch.load(ANCHORS / "acc_predictor.pth", map_location="cpu", weights_only=True)
    layers = [(state[f"{i}.weight"].numpy().T.copy(), state[f"{i}.bias"].numpy()) for i in (0, 2, 4, 6)]
    sizes = (np.array(codec.space.resolutions) - FIRST_SIZE) // 16

    def predicted(population: Population) -> np.ndarray:
        features = np.zeros((len(population), 2 * SLOTS * CHOICES + 8), dtype=np.float32)
        rows, slots = np.nonzero(codec.active(population))
        for part, start in enumerate((7, 7 + SLOTS)):
            features[rows, CHOICES * (SLOTS * part + slots) + population[rows, start + slots]] = 1
        features[np.arange(len(population)), 2 * SLOTS * CHOICES + sizes[population[:, 0]]] = 1
        for weight, bias in layers[:-1]:
            features = np.maximum(features @ weight + bias, 0)
        return (features @ layers[-1][0] + layers[-1][1])[:, 0].astype(float)

    return predicted


def their_finder(max_ms: float) -> tuple[float, float]:
    """Once-for-all's own finder with its default settings, here and now: seconds and predicted accuracy."""
    import ofa

    tutorial = ModuleType("ofa.tutorial")  # without its __init__, which imports notebooks' helpers
    tutorial.__path__ = [str(Path(ofa.__path__[0]) / "tutorial")]
    sys.modules["ofa.tutorial"] = tutorial
    torchvision_module("models")  # which theirs imports, and which a CPU build of torch does not let it
    from ofa.tutorial.accuracy_predictor import AccuracyPredictor
    from ofa.tutorial.evolution_finder import EvolutionFinder
    from ofa.tutorial.latency_table import LatencyEstimator, LatencyTable

    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(ANCHORS / "acc_predictor.pth", map_location="cpu", weights_only=True))
    table = LatencyTable.__new__(LatencyTable)  # its __init__ downloads
    table.latency_tables = {}
    for size in RESOLUTIONS:
        table.latency_tables[size] = LatencyEstimator.__new__(LatencyEstimator)
        text = (ANCHORS / "note10" / f"{size}_lookup_table.yaml").read_text()
        table.latency_tables[size].lut = yaml.safe_load(text)
    finder = EvolutionFinder("note10", max_ms, table, predictor)
    start = time.perf_counter()
    _, best = finder.run_evolution_search()
    return time.perf_counter() - start, float(best[0])


def our_command(max_ms: float, seed: int, workspace: Path) -> float:
    """Seconds of the whole command, its start included, once the tables and the predictor are imported."""
    command = [sys.executable, "-m", "ofa_deploy", "--workspace", str(workspace)]
    run = partial(subprocess.run, check=True, capture_output=True)
    if not workspace.exists():
        space = ["--space", "ofa_mbv3_w1.2"]
        run([*command, "import", "ofa-latency", str(ANCHORS / "note10"), "--name", "note10", *space])
        run([*command, "import", "ofa-accuracy", str(ANCHORS / "acc_predictor.pth"), "--name", "ofa-imagenet", *space])
    words = ["search", "--target", "note10", "--accuracy", "ofa-imagenet", "--confidence", "0.5", "--json"]
    start = time.perf_counter()
    run([*command, *words, "--max-ms", f"{max_ms:g}", "--seed", str(seed)])
    return time.perf_counter() - start


def main() -> None:
    """Search every budget with every seed; one line a budget on stderr, one JSON document on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--budgets", type=float, nargs="*", default=list(BEST) + OTHERS)
    parser.add_argument("--finder", type=float, nargs="*", default=[], help="Budgets at which it runs here and now.")
    options = parser.parse_args()
    space = load_space("ofa_mbv3_w1.2").with_resolutions(RESOLUTIONS)
    latency = LatencyModel(read_ofa_tables(ANCHORS / "note10", "note10", space))
    codec = PopulationCodec(space, per_resolution=True)
    accuracy, predict = published_accuracy(codec), latency.bind(codec).predict
    published = json.loads((ANCHORS / "ofa_finder_note10.json").read_text())
    kept = {entry["max_ms"]: entry["predicted_accuracy"] for entry in published}
    answers = []
    for max_ms in options.budgets:
        problem = Problem(codec, accuracy, predict, Constraints(max_ms=max_ms, confidence=0.5))
        runs = [search(problem, seed, time_limit=options.time_limit) for seed in range(options.seeds)]
        command, seconds, finder = None, None, kept.get(max_ms)
        if max_ms in options.finder:
            with tempfile.TemporaryDirectory() as folder:
                commands = [our_command(max_ms, seed, Path(folder) / "ws") for seed in range(options.seeds)]
            command = float(np.median(commands))
            seconds, finder = their_finder(max_ms)
        found = np.array([run.best.accuracy for run in runs])
        taken = float(np.median([run.seconds for run in runs]))
        answers.append(
            {
                "max_ms": max_ms,
                "lowest": float(found.min()),
                "mean": float(found.mean()),
                "highest": float(found.max()),
                "seconds": taken,
                "evaluations": float(np.mean([run.evaluations for run in runs])),
                "bound": float(np.mean([run.bound for run in runs])),
                "finder": finder,
                "lowest_over_finder": float(found.min() - finder) if finder else None,
                "mean_over_finder": float(found.mean() - finder) if finder else None,
                "finder_seconds": seconds,
                "command_seconds": command,
                "times_faster": seconds / taken if seconds else None,
                "command_times_faster": seconds / command if seconds and command else None,
                "near_best": int((found >= BEST[max_ms] - NEAR).sum()) if max_ms in BEST else None,
            }
        )
        print(json.dumps(answers[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"seeds": options.seeds, "time_limit": options.time_limit, "budgets": answers}, indent=2))


if __name__ == "__main__":
    main()
