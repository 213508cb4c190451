"""The simulated device: deterministic, never faster for more work, and as faulty as its figures say."""

import pytest

from device_agents.chunk import measure_chunk
from device_agents.protocol import Settings
from device_agents.runtimes import RuntimeRefused, open_runtime
from device_agents.runtimes.simulated import latency_s
from device_agents.summary import sentinel_levels, used_rounds
from ofa_deploy.config import TargetProfile, read_document, shipped_folder
from ofa_deploy.space import load_space, op_counts

FIGURES = read_document(TargetProfile, shipped_folder("profiles") / "jetson_nano.yaml").simulation.model_dump()
ASKED = {"runtime": "simulated", "provider": "TensorRT", "precision": "fp16", "batch": 1, "threads": 1}
BLOCK = {
    "dense_macs": 5_000_000,
    "depthwise_macs": 400_000,
    "weights": 20_000,
    "input": 50_000,
    "inside": 300_000,
    "output": 50_000,
    "kernels": 3,
}
NETWORK = [op_counts(op) for op in load_space("ofa_mbv3_w1.0").network(load_space("ofa_mbv3_w1.0").largest).ops]


def asked(**figures):
    return {**ASKED, "simulation": {**FIGURES, **figures}}


def item(key="k", counts=(BLOCK,)):
    return {"item": key, "blob": "b", "key": key, "kind": "op", "specs": [], "counts": list(counts)}


def load(key="k", counts=(BLOCK,), seed=0, **figures):
    return open_runtime(asked(**figures), seed).load(item(key, counts), fetch=None)


def run(items, settings=None, **figures):
    quick = {"rounds_min": 4, "min_s": 0, "rounds_max": 40}
    return {
        "runtime": asked(**figures),
        "settings": Settings(**{**quick, **(settings or {})})._asdict(),
        "items": items,
        "sentinels": [{**items[0], "item": "sentinel"}],
    }


def measure(*arguments, **figures):
    return measure_chunk(run(*arguments, **figures), models=None, report=lambda progress: None)


def test_equal_seeds_give_equal_timings_and_others_do_not():
    first, again, other = ([load(seed=seed).elapsed_ns(1) for _ in range(3)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    items = [item("a"), item("b", NETWORK)]
    assert measure(items)["items"] == measure(items)["items"]


@pytest.mark.parametrize("count", BLOCK)
def test_more_work_is_never_faster(count):
    times = [latency_s([{**BLOCK, count: int(BLOCK[count] * f)}], FIGURES, 1, "fp16") for f in (0.5, 1, 2, 10, 100)]
    assert times == sorted(times)
    assert times[-1] > times[0]


@pytest.mark.parametrize("figure", ["dense_share", "memory_share", "cache_kb", "launch_us", "call_us"])
def test_every_figure_counts(figure):
    figures = {**FIGURES, "dense_share": 0.6, "depthwise_share": 0.1}  # so that memory bounds some of its blocks
    changed = {**figures, figure: figures[figure] / 2}
    slower = figure not in ("launch_us", "call_us")
    assert (latency_s(NETWORK, changed, 1, "fp16") > latency_s(NETWORK, figures, 1, "fp16")) == slower


def test_a_network_takes_less_than_its_blocks_and_more_than_each():
    alone = [latency_s([block], FIGURES, 1, "fp16") for block in NETWORK]
    assert max(alone) < latency_s(NETWORK, FIGURES, 1, "fp16") < sum(alone) - 0.9 * (len(alone) - 1) * 1e-6 * 100


def test_half_the_precision_is_faster_and_a_batch_slower():
    assert latency_s(NETWORK, FIGURES, 1, "fp16") < latency_s(NETWORK, FIGURES, 1, "fp32")
    one, eight = (latency_s(NETWORK, FIGURES, batch, "fp16") for batch in (1, 8))
    assert one < eight < 8 * one


def test_it_says_that_it_is_simulated_and_other_figures_are_another_version():
    runtime, other = (open_runtime(asked(noise=noise), 0) for noise in (0.01, 0.02))
    assert runtime.condition["simulated"] is True
    assert runtime.real is False
    assert runtime.condition["runtime"] == "simulated"
    assert runtime.condition["runtime_version"].startswith("roofline-2-")
    assert runtime.condition["runtime_version"] != other.condition["runtime_version"]


def test_noise_is_small_and_spikes_are_rare():
    session = load(noise=0.02, spikes=0.05, spike=3.0)
    ideal = 1e9 * latency_s([BLOCK], FIGURES, 1, "fp16")
    ratios = [session.elapsed_ns(10) / 10 / ideal for _ in range(1000)]
    assert 20 <= sum(ratio > 2 for ratio in ratios) <= 90
    calm = [ratio for ratio in ratios if ratio < 2]
    assert 0.99 < sum(calm) / len(calm) < 1.01
    assert load(noise=0, spikes=0).elapsed_ns(1) == round(ideal)


def test_a_chunk_is_measured_in_the_devices_own_time():
    result = measure([item("a"), item("b", NETWORK)], {"cap_s": 1e6})
    assert result["stopped"] == "settled"
    assert result["facts"] == {"simulated": True, "simulation": FIGURES}
    assert [found["item"] for found in result["items"]] == ["a", "b"]


def test_drift_shows_as_throttling():
    def throttled(**figures):
        settings = {"rounds_min": 12, "cap_s": 20.0}
        visits = measure([item("a", NETWORK), item("b", NETWORK)], settings, **figures)["sentinel"]["visits"]
        return used_rounds(sentinel_levels(visits), Settings().drift, 6)[1]

    assert throttled(drift=0.6, drift_s=5.0)
    assert not throttled(drift=0.0)


def test_faults_have_their_reasons():
    faults = {"bad": "failed", "big": "out-of-memory"}
    items = [item("good"), item("bad-1"), item("big-1"), {**item("none"), "counts": []}]
    found = {one["item"]: one for one in measure(items, faults=faults)["items"]}
    reasons = {key: one["error"]["reason"] for key, one in found.items() if "error" in one}
    assert reasons == {"bad-1": "failed", "big-1": "out-of-memory", "none": "malformed"}


def test_what_does_not_fit_into_its_memory():
    with pytest.raises(MemoryError, match="1 MB"):
        load(counts=NETWORK, memory_mb=1)


def test_a_simulation_without_figures_is_refused():
    with pytest.raises(RuntimeRefused, match="figures") as error:
        open_runtime(ASKED, 0)
    assert error.value.reason == "malformed"
    with pytest.raises(RuntimeRefused, match="no figures for int8"):
        open_runtime({**asked(), "precision": "int8"}, 0)


def test_in_real_time_it_takes_the_time_that_it_says(monkeypatch):
    slept = []
    monkeypatch.setattr("device_agents.runtimes.simulated.time.sleep", slept.append)
    elapsed = load(real_time=True).elapsed_ns(3)
    assert slept == [pytest.approx(elapsed / 1e9)]
