"""Every profile that ships: its facts have sources, its device can be simulated, faster devices are faster."""

import pytest

from device_agents.runtimes import open_runtime
from device_agents.runtimes.simulated import latency_s
from ofa_deploy.blocks import Network, OpSpec
from ofa_deploy.config import TargetProfile, read_document, shipped_folder
from ofa_deploy.space import load_space, op_counts

PROFILES = {path.stem: read_document(TargetProfile, path) for path in shipped_folder("profiles").glob("*.yaml")}
SIMULATED = sorted(name for name, profile in PROFILES.items() if profile.simulation)
END_TO_END = ("android_phone", "raspberry_pi_4", "server_gpu_h100")  # one of each kind: a command takes seconds


def mobilenet_v2(size: int) -> list[dict[str, int]]:
    """The counts of MobileNetV2's blocks (its paper's table 2)."""
    ops = [OpSpec("stem", size, size, 3, 0, 32, 3, 2, "relu6")]
    rows = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expand, width, depth, first_stride in rows:
        for stride in (first_stride, *[1] * (depth - 1)):
            (side, _), cin = ops[-1].out_hw, ops[-1].cout
            skip = stride == 1 and cin == width
            ops.append(OpSpec("mbconv", side, side, cin, expand * cin, width, 3, stride, "relu6", skip=skip))
    side = ops[-1].out_hw[0]
    ops.append(OpSpec("head", side, side, 320, 0, 1280, act="relu6"))
    return [op_counts(op) for op in [*ops, OpSpec("classifier", 1, 1, 1280, 0, 1000)]]


def simulated_ms(name: str, counts: list[dict[str, int]]) -> float:
    profile = PROFILES[name]
    assert profile.simulation
    return 1000 * latency_s(counts, profile.simulation.model_dump(), profile.batch, profile.precision)


def counts_of(network: Network) -> list[dict[str, int]]:
    return [op_counts(op) for op in network.ops]


def test_kinds_of_devices_that_ship() -> None:
    assert len(SIMULATED) >= 8
    assert set(END_TO_END) < set(SIMULATED)


@pytest.mark.parametrize("name", SIMULATED)
def test_facts_have_sources_and_figures_agree_with_them(name: str) -> None:
    profile = PROFILES[name]
    assert profile.simulation
    assert all(len(fact.source) > 5 for fact in profile.facts.values())
    for precision, gflops in profile.simulation.gflops.items():
        assert profile.facts[f"peak_gflops_{precision}"].value == gflops
    [cache] = [fact.value for key, fact in profile.facts.items() if key.endswith("cache_kb")]
    assert cache == profile.simulation.cache_kb
    assert "memory" in profile.facts


@pytest.mark.parametrize("name", SIMULATED)
def test_its_runtime_computes_in_its_precision(name: str) -> None:
    profile = PROFILES[name]
    asked = profile.model_copy(update={"runtime": "simulated"}).model_dump()
    network = load_space("small_28")
    item = {"item": "0", "key": "k", "counts": counts_of(network.network(network.largest))}
    assert open_runtime(asked, 0).load(item, None).elapsed_ns(1) > 0


def test_faster_devices_are_faster() -> None:
    space = load_space("ofa_mbv3_w1.0")
    counts = counts_of(space.network(space.largest))
    order = ["server_gpu_h100", "server_gpu_t4", "jetson_orin_nano", "jetson_nano"]
    times = [simulated_ms(name, counts) for name in order]
    assert times == sorted(times)
    assert simulated_ms("raspberry_pi_5", counts) < simulated_ms("raspberry_pi_4", counts)


def test_the_nano_takes_what_nvidia_published_for_mobilenet_v2() -> None:
    published = 1000 / float(PROFILES["jetson_nano"].facts["mobilenet_v2_300x300_fps"].value)
    assert simulated_ms("jetson_nano", mobilenet_v2(300)) == pytest.approx(published, rel=0.02)


def test_15_ms_on_the_nano_bind_the_imagenet_space() -> None:
    space = load_space("ofa_mbv3_w1.0")
    assert simulated_ms("jetson_nano", counts_of(space.network(space.smallest))) < 15
    assert simulated_ms("jetson_nano", counts_of(space.network(space.largest))) > 15


@pytest.mark.parametrize("name", END_TO_END)
def test_a_subnet_is_extracted_for_it(ofa_deploy, tmp_path, name: str) -> None:
    space = ("--space", "small_28", "--random-weights")
    done = ofa_deploy("extract", "--target", name, *space, "--max-ms", "5", "--se", "0.05", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SIMULATED p50 ")
