"""The browser agent's protocol is the Python agent's: the same timings stop both at the same moment."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from device_agents.protocol import Rounds, Settings, SimulatedTime
from device_agents.summary import median, relative_error, sentinel_levels, slow_rounds

WEB = Path(__file__).parents[2] / "device_agents" / "web"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine")

PORT = f"""
import {{ readFileSync }} from "node:fs";
import {{ Rounds }} from "{WEB.as_uri()}/protocol.js";
import {{ median, relativeError, sentinelLevels, slowRounds }} from "{WEB.as_uri()}/summary.js";

async function measured({{ costs, factors, breaks, settings }}) {{
  let now = 0;
  const session = (ms, name) => {{
    let turn = 0;
    const elapsedNs = (calls) => {{
      if (turn === breaks[name]) throw new Error("kernel\\nnot found");
      const spent = calls * (ms * 1e6 * factors[turn++ % factors.length]);
      now += spent;
      return spent;
    }};
    return {{ elapsedNs }};
  }};
  const sessions = new Map(Object.entries(costs).map(([name, ms]) => [name, session(ms, name)]));
  const rounds = await Rounds.open(sessions, session(1, "sentinel"), settings, {{ clock: () => now, resolutionNs: 1 }});
  const stopped = await rounds.measure();
  const series = [...rounds.series].map(([name, {{ burst, timings }}]) => [name, {{ burst, timings }}]);
  const {{ visits, settled }} = rounds;
  const errors = Object.fromEntries(rounds.errors);
  return {{ stopped, visits, settled, errors, series: Object.fromEntries(series) }};
}}

const judged = ({{ visits, drift }}) => {{
  const levels = sentinelLevels(visits);
  return {{ levels, slow: slowRounds(levels, drift), error: relativeError(levels), middle: median(levels) }};
}};

const cases = JSON.parse(readFileSync(0, "utf8"));
const answer = {{ rounds: [], levels: cases.levels.map(judged) }};
for (const one of cases.rounds) answer.rounds.push(await measured(one));
console.log(JSON.stringify(answer));
"""


class Turns:
    """A session whose n-th call of ``elapsed_ns`` takes the n-th factor of what a call costs."""

    def __init__(self, ms, factors, breaks):
        self.ms, self.factors, self.breaks, self.turn = ms, factors, breaks, 0

    def elapsed_ns(self, calls):
        if self.turn == self.breaks:
            raise RuntimeError("kernel\nnot found")
        self.turn += 1
        return calls * (self.ms * 1e6 * self.factors[(self.turn - 1) % len(self.factors)])


def case(seed, noise=0.0, burst_of_slowness=(0, 0), breaks=None, **settings):
    source = random.Random(seed)
    factors = [1 + abs(source.gauss(0, noise)) for _ in range(4001)]
    begin, end = burst_of_slowness
    factors[begin:end] = [1.5 * factor for factor in factors[begin:end]]
    costs = {f"op{i}": source.uniform(0.01, 3) for i in range(6)} | {"large": 170.0}
    return {
        "costs": costs,
        "factors": factors,
        "breaks": breaks or {},
        "settings": Settings(**{"min_s": 0.1, **settings})._asdict(),
    }


CASES = {
    "quiet": case(1),
    "noisy, until sure": case(2, noise=0.05),
    "too noisy to be sure of": case(3, noise=0.6, rounds_max=20, cap_s=1e6),
    "slow in between, measured again": case(4, noise=0.01, burst_of_slowness=(90, 220)),
    "slow at the end of the time": case(5, noise=0.01, burst_of_slowness=(60, 4000), cap_s=30),
    "no time at all": case(6, cap_s=0.01),
    "hardly enough time": case(6, cap_s=1.5),
    "an item breaks": case(7, breaks={"op2": 30, "op4": 1}),
}
LEVELS = [
    {"visits": [[[random.Random(i * 100 + j).lognormvariate(0, 0.2)] * 2] * 3 for j in range(i)], "drift": 0.12}
    for i in range(3, 30)
]


@pytest.fixture(scope="module")
def port():
    """What the JavaScript makes of all cases."""
    asked = json.dumps({"rounds": list(CASES.values()), "levels": LEVELS})
    command = [NODE, "--input-type=module", "-e", PORT]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_measures_and_stops_alike(port, name):
    asked, got = CASES[name], port["rounds"][list(CASES).index(name)]

    def session(ms, name):
        return Turns(ms, asked["factors"], asked["breaks"].get(name))

    sessions = {item: session(ms, item) for item, ms in asked["costs"].items()}
    sentinel, clock = session(1, "sentinel"), SimulatedTime()
    for one in [*sessions.values(), sentinel]:
        clock.watch(one)
    rounds = Rounds(sessions, sentinel, Settings(**asked["settings"]), clock)
    assert got["stopped"] == rounds.measure()
    assert len(got["visits"]) == len(rounds.visits)
    assert got["visits"] == rounds.visits
    assert got["settled"] == rounds.settled
    assert got["errors"] == rounds.errors
    assert got["series"] == {item: {"burst": one.burst, "timings": one.timings} for item, one in rounds.series.items()}


def test_the_cases_end_in_every_way(port):
    assert {one["stopped"] for one in port["rounds"]} == {"settled", "cap", "rounds"}
    assert any(one["errors"] for one in port["rounds"])
    assert any(one["slow"] for one in port["levels"])


@pytest.mark.parametrize("place", range(len(LEVELS)))
def test_judges_rounds_alike(port, place):
    asked, got = LEVELS[place], port["levels"][place]
    levels = sentinel_levels(asked["visits"])
    assert got["levels"] == levels
    assert got["slow"] == slow_rounds(levels, asked["drift"])
    assert got["error"] == pytest.approx(relative_error(levels), rel=1e-12)
    assert got["middle"] == median(levels)
