import gc
import random

import pytest

from device_agents.protocol import Rounds, Settings, SimulatedTime, timer_resolution_ns
from device_agents.summary import sentinel_levels, slow_rounds, summarise, switch_costs, used_rounds, work


class Machine:
    """A clock that only moves when something runs on it; ``speed(seconds)`` says how slow the machine is then."""

    def __init__(self, speed=lambda second: 1.0):
        self.now = 0.0
        self.speed = speed

    def clock(self):
        self.now += 20  # reading a clock takes time too
        return int(self.now)

    def session(self, ms, noise=lambda: 0.0):
        return Session(self, ms, noise)


class Session:
    def __init__(self, machine, ms, noise):
        self.machine, self.ms, self.noise, self.calls = machine, ms, noise, 0

    def run(self):
        self.calls += 1
        self.machine.now += self.ms * 1e6 * self.machine.speed(self.machine.now / 1e9) * (1 + self.noise())


class Broken:
    def __init__(self, works=0):
        self.left = works

    def run(self):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("kernel\nnot found")


def measure(machine, costs, settings=None, sentinel_ms=1.0):
    settings = settings or Settings()
    sessions = {name: machine.session(ms) for name, ms in costs.items()}
    rounds = Rounds(sessions, machine.session(sentinel_ms), settings, machine.clock)
    return rounds, rounds.measure()


def p50(rounds):
    used, throttled = used_rounds(
        sentinel_levels(rounds.visits), rounds.settings.drift, rounds.settings.rounds_min // 2
    )
    return {name: summarise(series.timings, used)["p50"] for name, series in rounds.series.items()}, throttled


COSTS = {f"op{i}": 0.2 + 0.35 * i for i in range(20)}


def test_a_quiet_machine_is_measured_exactly_in_the_fewest_rounds():
    rounds, stopped = measure(Machine(), COSTS)
    assert stopped == "settled"
    assert len(rounds.visits) == 12
    assert p50(rounds)[0] == pytest.approx(COSTS, rel=1e-3)


def test_a_machine_that_drifts_keeps_the_ratios_and_measuring_in_turn_would_not():
    def heating(second):
        return 1.0 + 0.5 * second / 10

    rounds, _ = measure(Machine(heating), COSTS)
    found, _ = p50(rounds)
    level = found["op0"] / COSTS["op0"]
    assert {name: ms / level for name, ms in found.items()} == pytest.approx(COSTS, rel=0.03)

    machine, naive = Machine(heating), {}
    for name, ms in COSTS.items():
        session, begin = machine.session(ms), machine.clock()
        for _ in range(100):
            session.run()
        naive[name] = (machine.clock() - begin) / 1e8
    level = naive["op0"] / COSTS["op0"]
    assert naive["op19"] / level > 1.2 * COSTS["op19"]


def test_slow_rounds_are_seen_left_out_and_measured_again():
    machine = Machine(lambda second: 1.5 if 1.0 < second < 4.0 else 1.0)
    rounds, stopped = measure(machine, COSTS)
    slow = slow_rounds(sentinel_levels(rounds.visits), 0.12)
    assert stopped == "settled"
    assert len(slow) >= 3
    assert len(rounds.visits) - len(slow) == 12
    found, throttled = p50(rounds)
    assert not throttled
    assert found == pytest.approx(COSTS, rel=1e-3)


def test_a_device_that_throttles_for_good_says_so():
    machine = Machine(lambda second: 1.0 if second < 2.0 else 1.6)
    rounds, stopped = measure(machine, COSTS, Settings(rounds_max=30))
    found, throttled = p50(rounds)
    assert stopped == "rounds"
    assert throttled
    assert found == pytest.approx({name: 1.6 * ms for name, ms in COSTS.items()}, rel=1e-3)


def test_noise_takes_more_rounds_until_it_is_averaged_out():
    import random

    noise = random.Random(3)
    machine = Machine()
    sessions = {"still": machine.session(1.0), "noisy": machine.session(2.0, lambda: abs(noise.gauss(0, 0.2)))}
    rounds = Rounds(sessions, machine.session(1.0), Settings(rounds_max=400), machine.clock)
    assert rounds.measure() == "settled"
    assert 12 < len(rounds.visits) < 400
    assert len(rounds.series["still"].timings) == len(rounds.series["noisy"].timings)


def test_the_cap_ends_it_but_not_before_three_rounds():
    import random

    noise = random.Random(3)
    machine = Machine()
    sessions = {"noisy": machine.session(5.0, lambda: noise.random())}
    rounds = Rounds(sessions, machine.session(1.0), Settings(cap_s=1.0), machine.clock)
    begin = machine.now
    assert rounds.measure() == "cap"
    assert (machine.now - begin) / 1e9 <= 1.0
    rounds, stopped = measure(Machine(), {"huge": 3000.0}, Settings(cap_s=1.0))
    assert (stopped, len(rounds.visits)) == ("cap", 3)


@pytest.mark.parametrize(("items", "ms"), [(42, 15.0), (200, 3.0), (10, 90.0)])
def test_items_that_would_not_be_visited_three_times_within_the_cap_are_timed_less_often(items, ms):
    machine, settings = Machine(), Settings(cap_s=10.0)
    sessions = {f"network{i}": machine.session(ms) for i in range(items)}
    rounds = Rounds(sessions, machine.session(0.1), settings, machine.clock)
    begin = machine.now
    assert rounds.measure() in ("cap", "settled")
    assert len(rounds.visits) >= 3
    assert (machine.now - begin) / 1e9 <= 10.0
    assert {len(visit) for series in rounds.series.values() for visit in series.timings} <= {2, 3, 4, 5}


def test_bursts_fit_the_timer_and_slow_items_are_timed_less_often():
    rounds, _ = measure(Machine(), {"tiny": 0.002, "slow": 60.0, "huge": 500.0}, Settings(rounds_min=3))
    tiny, slow, huge = (rounds.series[name] for name in ("tiny", "slow", "huge"))
    assert tiny.burst * 0.002 == pytest.approx(0.5, rel=0.05)
    assert (slow.burst, slow.bursts) == (1, 3)
    assert (huge.burst, huge.bursts) == (1, 2)


def test_a_coarse_clock_makes_long_bursts():
    machine = Machine()
    coarse = lambda: int(machine.clock() // 15_000) * 15_000  # noqa: E731
    assert timer_resolution_ns(coarse) == 15_000
    rounds = Rounds({"op": machine.session(0.1)}, machine.session(0.1), Settings(), coarse)
    assert rounds.series["op"].burst * 0.1 >= 14.0


def test_every_round_visits_every_item_in_another_order_that_the_seed_repeats():
    def orders(seed):
        machine, seen = Machine(), []
        rounds = Rounds(
            {n: machine.session(ms) for n, ms in COSTS.items()}, machine.session(1), Settings(seed=seed), machine.clock
        )
        for name, series in [*rounds.series.items(), ("sentinel", rounds.sentinel)]:
            series.run = lambda name=name, run=series.run: (seen.append(name), run())
        rounds.measure()
        visits = [name for i, name in enumerate(seen) if name != "sentinel" and seen[i - 1] != name]
        return [visits[i : i + 20] for i in range(0, 240, 20)]

    first = orders(1)
    assert all(sorted(order) == sorted(COSTS) for order in first)
    assert len({tuple(order) for order in first}) == 12
    assert orders(1) == first != orders(2)


@pytest.mark.parametrize("works", [0, 40])
def test_an_item_that_breaks_costs_only_itself(works):
    machine = Machine()
    sessions = {"good": machine.session(1.0), "bad": Broken(works)}
    rounds = Rounds(sessions, machine.session(1.0), Settings(burst_ms=0.001, warmup_ms=0.0001), machine.clock)
    assert rounds.measure() == "settled"
    assert set(rounds.series) == {"good"}
    assert rounds.errors == {"bad": {"reason": "failed", "message": "kernel not found"}}


def test_nothing_but_failures_still_ends():
    machine = Machine()
    rounds = Rounds({"bad": Broken()}, machine.session(1.0), Settings(), machine.clock)
    assert rounds.measure() == "settled"


def test_garbage_collection_is_off_while_timing_and_on_again_whatever_happens():
    machine, seen = Machine(), []

    def report(progress):
        seen.append((progress["phase"], gc.isenabled()))
        if len(seen) > 20:
            raise KeyboardInterrupt

    rounds = Rounds(
        {n: machine.session(ms) for n, ms in COSTS.items()}, machine.session(1), Settings(), machine.clock, None
    )
    rounds.report = report
    with pytest.raises(KeyboardInterrupt):
        rounds.measure()
    assert {enabled for _, enabled in seen} == {False}
    assert gc.isenabled()


class Simulated:
    """A device that says how long it took."""

    def __init__(self, ms):
        self.ms, self.calls = ms, []

    def elapsed_ns(self, calls):
        self.calls.append(calls)
        return calls * self.ms * 1e6


def test_a_session_that_times_itself_is_believed_and_its_time_is_what_passes():
    clock = SimulatedTime()
    sessions = {name: Simulated(ms) for name, ms in COSTS.items()}
    sentinel = Simulated(1.0)
    for session in [*sessions.values(), sentinel]:
        clock.watch(session)
    rounds = Rounds(sessions, sentinel, Settings(min_s=20.0), clock)
    assert rounds.measure() == "settled"
    assert p50(rounds)[0] == pytest.approx(COSTS)
    assert clock.now > 20e9
    assert max(sessions["op0"].calls) == rounds.series["op0"].burst > 1


def test_what_is_visited_is_said_before_it_runs():
    seen, machine = [], Machine()
    rounds = Rounds({"op": machine.session(1.0)}, machine.session(1.0), Settings(), machine.clock, visiting=seen.append)
    rounds.measure()
    assert seen[:6] == [None, "op", None, None, "op", None]


class Shared:
    """A core that others use too: a burst that outlives a slice waits for its turn; its processor time does not."""

    SLICE_MS = 4.0

    def __init__(self, others):
        self.now, self.cpu, self.switches, self.others = 0.0, 0.0, 0, others

    def clock(self):
        self.now += 20
        return int(self.now)

    def spent(self):
        return int(self.cpu), self.switches

    def session(self, ms):
        return SharedSession(self, ms)


class SharedSession:
    def __init__(self, core, ms):
        self.core, self.ms = core, ms

    def run(self):
        core = self.core
        before = core.cpu // (core.SLICE_MS * 1e6)
        core.cpu += self.ms * 1e6
        core.now += self.ms * 1e6
        slices = int(core.cpu // (core.SLICE_MS * 1e6) - before) if core.others else 0
        core.switches += slices
        core.now += slices * core.others * core.SLICE_MS * 1e6


@pytest.mark.parametrize("others", [0, 1, 3])
def test_waiting_for_a_core_is_told_from_running(others):
    core, costs = Shared(others), {"small": 0.05, "middle": 1.5, "large": 15.0}
    sessions = {name: core.session(ms) for name, ms in costs.items()}
    rounds = Rounds(sessions, core.session(0.1), Settings(cap_s=20.0), core.clock, spent=core.spent)
    rounds.measure()
    for name, series in rounds.series.items():
        used = range(len(series.timings))
        found = summarise(series.timings, used, series.cpu, series.switches)
        assert found["best"] == pytest.approx(costs[name], rel=0.02)
        assert found["work_ms"] == pytest.approx(costs[name], rel=0.02)
        assert found["waiting_ms"] == pytest.approx(found["p50"] - costs[name], abs=0.02 * costs[name])
        if others and name == "large":
            assert found["p50"] > (1 + 0.7 * others) * costs[name]
            assert summarise(series.timings, used)["best"] > (1 + 0.7 * others) * costs[name]  # without processor time


def test_processor_time_says_nothing_where_calls_do_not_run_on_one_core():
    timings, several, gpu = [[10.0, 10.0]] * 5, [[40.0, 40.0]] * 5, [[1.0, 1.0]] * 5
    for cpu in (several, gpu):
        switches = [[0, 1]] * 5
        assert work(timings, cpu, switches) == timings
    assert work(timings, [[10.0, 4.0]] * 5, [[0, 1]] * 5) == [[10.0, 4.0]] * 5
    assert work(timings, [], []) == timings


def shared_bursts(rng, ms, slice_ms, cost_ms, visits=40, bursts=6):
    """Processor time and switches of a network beside others: each switch leaves it with cold caches."""
    cpu, switches = [], []
    for _ in range(visits):
        spent = [ms * (1 + abs(rng.gauss(0, 0.02))) for _ in range(bursts)]
        lost = [int(one / slice_ms + rng.random()) if slice_ms else 0 for one in spent]
        cpu.append(
            [one + sum(cost_ms * rng.uniform(0.5, 1.5) for _ in range(n)) for one, n in zip(spent, lost, strict=True)]
        )
        switches.append(lost)
    return cpu, switches


@pytest.mark.parametrize("cost_ms", [0.05, 0.2, 0.4])
def test_what_a_context_switch_costs_is_not_part_of_the_undisturbed_latency(cost_ms):
    rng, sizes = random.Random(1), [0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 3.0, 5.0, 15.0, 40.0]
    alone, beside = ([shared_bursts(rng, ms, slice_ms, cost_ms) for ms in sizes] for slice_ms in (None, 3.0))
    assert switch_costs([(1, *one) for one in alone]) == [0.0] * len(sizes)
    costs = switch_costs([(1, *one) for one in beside])
    assert all(0.5 * cost_ms < cost < 1.1 * cost_ms for cost in costs)
    for quiet, (cpu, switches), cost in zip(alone, beside, costs, strict=True):
        timings = [
            [spent + 4.0 * n for spent, n in zip(*visit, strict=True)] for visit in zip(cpu, switches, strict=True)
        ]
        then, now = summarise(quiet[0], range(40)), summarise(timings, range(40), cpu, switches, cost)
        assert now["best"] == pytest.approx(then["best"], rel=0.035)
        assert now["work_ms"] == pytest.approx(then["p50"], rel=0.06)
        assert now["work_ms"] < summarise(timings, range(40), cpu, switches)["work_ms"] or not any(map(sum, switches))


def test_a_cost_is_of_a_burst_whatever_its_calls():
    calls = [[[0.1] * 6] * 10 for _ in range(2)]
    calls[1] = [[0.1, 0.1, 0.1, 0.1, 0.1, 0.12]] * 10
    switches = [[0, 0, 0, 0, 0, 1]] * 10
    assert switch_costs([(10, calls[1], switches)]) == pytest.approx([0.2])
    assert switch_costs([(10, calls[0], switches), (10, [], [])]) == [0.0, 0.0]


def test_no_switch_makes_a_burst_faster_than_those_that_kept_their_core():
    timings, cpu = [[10.0, 10.0]] * 6, [[10.0, 10.0]] * 6
    timings, cpu, switches = (
        [*rounds, [last, first]]
        for rounds, last, first in ((timings, 30.0, 10.0), (cpu, 10.5, 10.0), ([[0, 0]] * 6, 1, 0))
    )
    assert work(timings, cpu, switches, 2.0)[-1] == [10.0, 10.0]
    assert work(timings, cpu, switches, 0.2)[-1] == [pytest.approx(10.3), 10.0]
