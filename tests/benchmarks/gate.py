"""Candidates a second: the gate's means against a compiled pruner that sums a hash map over the layers.

    python tests/benchmarks/gate.py [--count 2000000] [--pairs 7]

The pruner is what one would write first in Rust: for each candidate a look-up a layer in a ``HashMap``, the sum of the
latencies, of the FLOPs and of the layers, and three comparisons; one thread, ``rustc -O``. Both run in turn. Without
``rustc`` the gate runs alone. The table's values are made up; they do not change the work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ofa_deploy.search import Constraints, Gate, Problem
from ofa_deploy.space import Population, PopulationCodec, load_space

PRUNER = r"""
use std::collections::HashMap;
use std::time::Instant;

const LAYERS: usize = 20;
const KINDS: u64 = 9;

#[derive(PartialEq, Eq, Hash)]
struct Layer { position: u32, kernel: u32, expand: u32 }

#[derive(Clone, Copy)]
struct Cost { ms: f64, flops: f64 }

fn main() {
    let count: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut state: u64 = 88172645463325252;
    let mut next = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
    let mut table: HashMap<Layer, Cost> = HashMap::new();
    for layer in 0..LAYERS as u8 {
        for kind in 0..KINDS as u8 {
            let ms = 0.5 + (next() % 1000) as f64 / 1000.0;
            let key = Layer { position: layer as u32, kernel: kind as u32 / 3, expand: kind as u32 % 3 };
            table.insert(key, Cost { ms, flops: 1e7 * ms });
        }
    }
    let candidates: Vec<[u8; LAYERS]> = (0..count)
        .map(|_| { let mut c = [0u8; LAYERS]; for k in c.iter_mut() { *k = (next() % (KINDS + 1)) as u8 } c })
        .collect();
    let start = Instant::now();
    let mut kept = 0usize;
    for candidate in &candidates {
        let (mut ms, mut flops, mut layers, mut large) = (0.0, 0.0, 0, 0);
        for (layer, &kind) in candidate.iter().enumerate() {
            let key = Layer { position: layer as u32, kernel: kind as u32 / 3, expand: kind as u32 % 3 };
            if let Some(cost) = table.get(&key) {
                ms += cost.ms; flops += cost.flops; layers += 1;
                if kind >= 6 { large += 1 }
            }
        }
        if ms <= 18.0 && flops <= 1.8e8 && layers <= 19 && large <= 8 { kept += 1 }
    }
    println!("{} {}", start.elapsed().as_secs_f64(), kept);
}
"""


def pruner(folder: Path, count: int) -> Callable[[], float] | None:
    """A function that runs the compiled pruner and returns its seconds; None without ``rustc``."""
    if not shutil.which("rustc"):
        return None
    (folder / "pruner.rs").write_text(PRUNER)
    subprocess.run(["rustc", "-O", "-o", folder / "pruner", folder / "pruner.rs"], check=True, capture_output=True)

    def run() -> float:
        answer = subprocess.run([folder / "pruner", str(count)], check=True, capture_output=True, text=True)
        return float(answer.stdout.split()[0])

    return run


def the_gate(workers: int) -> tuple[Gate, PopulationCodec]:
    """Latency means, MACs (both ways), parameters, layers and large kernels of once-for-all's space."""
    codec = PopulationCodec(load_space("ofa_mbv3_w1.2"))
    table = np.append(np.random.default_rng(0).uniform(0.5, 1.5, len(codec.ops)), 0.0)

    def latency(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean = table.take(codec.op_ids(population)).sum(axis=0)
        return mean, np.zeros(len(mean))

    bounds = Constraints(
        max_ms=19, confidence=0.5, max_macs=4e8, min_macs=1e8, max_params=9e6, max_layers=22, max_large_kernels=8
    )
    return Gate(Problem(codec, codec.macs, latency, bounds), workers), codec


def main() -> None:
    """Run both in turn and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    gate, codec = the_gate(options.workers)
    population = (
        np.random.default_rng(1).integers(0, codec.choices, (options.count, len(codec.choices))).astype(np.int8)
    )
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        rust = pruner(Path(folder), options.count)
        for _ in range(options.pairs):
            start = time.perf_counter()
            verdicts = gate.check(population)
            ours.append(options.count / (time.perf_counter() - start) / 1e6)
            if rust:
                theirs.append(options.count / rust() / 1e6)
    answer = {
        "workers": options.workers,
        "feasible": float(verdicts.feasible.mean()),
        "gate_million_a_second": float(np.median(ours)),
        "pruner_million_a_second": float(np.median(theirs)) if theirs else None,
        "ratio": float(np.median(np.array(ours) / np.array(theirs))) if theirs else None,
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
