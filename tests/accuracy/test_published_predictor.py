"""The imported accuracy predictor: the same predictions as torch makes with the published network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from ofa_deploy.accuracy import (
    PublishedPredictor,
    import_predictor,
    keep_predictor,
    load_predictor,
    objective,
    read_predictor,
)
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.importers import ofa_entries
from ofa_deploy.space import Arch, PopulationCodec, load_space

SPACE = load_space("ofa_mbv3_w1.2")
ANCHORS = Path(__file__).parents[2] / ".." / "shared" / "anchors" / "ofa"
FILE, FOUND, TABLES = (ANCHORS / name for name in ("acc_predictor.pth", "ofa_finder_note10.json", "note10"))
PUBLISHED = pytest.mark.skipif(not FILE.is_file(), reason="once-for-all's published predictor is not here")


def network() -> nn.Sequential:
    """The published architecture, with random weights."""
    torch.manual_seed(0)
    sizes = (128, 400, 400, 400)
    hidden = [layer for i in range(3) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(400, 1)).eval()


def features(arch: Arch) -> list[float]:
    """The input as once-for-all describes it."""
    kernels, expands, resolution = np.zeros((20, 3)), np.zeros((20, 3)), np.zeros(8)
    for slot in range(20):
        if slot % 4 < arch.depths[slot // 4]:
            kernels[slot, (3, 5, 7).index(arch.kernels[slot])] = 1
            expands[slot, (3, 4, 6).index(arch.expands[slot])] = 1
    resolution[(arch.resolution - 112) // 16] = 1
    return [*kernels.ravel(), *expands.ravel(), *resolution]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("accuracy") / "predictor.pth"
    torch.save(network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def predictor(made_up: Path) -> PublishedPredictor:
    return import_predictor(made_up, SPACE)


@torch.no_grad()
def check(predictor: PublishedPredictor, theirs: nn.Sequential, archs: list[Arch]) -> None:
    want = theirs(torch.tensor([features(arch) for arch in archs], dtype=torch.float32))[:, 0].numpy()
    got, deviation = predictor.predict(predictor.codec.encode(archs))
    assert np.abs(got - want).max() < 1e-5
    assert np.isnan(deviation).all()


def test_predictions_are_torchs(predictor) -> None:
    codec = predictor.codec
    archs = codec.decode(codec.sample(500, np.random.default_rng(0)))
    assert {arch.resolution for arch in archs} == set(SPACE.resolutions)
    check(predictor, network(), [SPACE.smallest, SPACE.largest, *archs])


@PUBLISHED
def test_predictions_are_those_of_the_published_network() -> None:
    predictor, theirs = import_predictor(FILE, SPACE), network()
    theirs.load_state_dict(torch.load(FILE, map_location="cpu", weights_only=True))
    check(predictor, theirs, predictor.codec.decode(predictor.codec.sample(500, np.random.default_rng(1))))
    found = json.loads(FOUND.read_text())
    got = predictor.predict(predictor.codec.encode([one["arch"] for one in found]))[0]
    assert got == pytest.approx([one["predicted_accuracy"] for one in found], abs=1e-5)


def test_a_subnet_is_worth_the_same_in_every_population(predictor) -> None:
    population = predictor.codec.sample(700, np.random.default_rng(2))
    values = predictor.predict(population)[0]
    assert predictor.predict(population[:0])[0].shape == (0,)
    for part in (slice(0, 1), slice(255, 258), slice(600, 700), slice(None, None, -1)):
        assert np.array_equal(predictor.predict(population[part])[0], values[part])


def test_the_objective_knows_fewer_resolutions_but_no_others(predictor) -> None:
    few = PopulationCodec(SPACE.with_resolutions((176, 224)))
    population = few.sample(50, np.random.default_rng(3))
    want = np.clip(predictor.predict(predictor.codec.encode(few.decode(population)))[0], 0, 1)
    assert np.array_equal(objective(few, predictor)(population), want)
    others = (SPACE.with_resolutions((96, 224)), load_space("ofa_mbv3_w1.0"), load_space("tiny_16"))
    for space, says in zip(others, ("at 96 pixels", "ofa_mbv3_w1.0", "tiny_16"), strict=True):
        with pytest.raises(UsageError, match=f"on ofa_mbv3_w1.2 and does not know .*{says}"):
            objective(PopulationCodec(space), predictor)


def test_files_round_trip_and_damage(predictor, workspace) -> None:
    path = keep_predictor(workspace, "imagenet", predictor)
    content = path.read_bytes()
    population = predictor.codec.sample(50, np.random.default_rng(4))
    for again in (load_predictor(workspace, "imagenet"), read_predictor(predictor.codec, content)):
        assert np.array_equal(again.predict(population)[0], predictor.predict(population)[0])
        assert again.error == predictor.error
        assert again.to_bytes() == content
    for broken in (content[: len(content) // 2], b"", b"nonsense" * 9):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match=r"imagenet\.safetensors: the accuracy predictor's file is truncated"):
            load_predictor(workspace, "imagenet")
    with pytest.raises(UsageError, match="unknown accuracy predictor 'other'; known: imagenet; take one with"):
        load_predictor(workspace, "other")
    for name in ("../imagenet", "", "a/b", "x" * 101):
        with pytest.raises(UsageError, match="is not a name"):
            keep_predictor(workspace, name, predictor)
        with pytest.raises(UsageError, match="unknown accuracy predictor"):
            load_predictor(workspace, name)


CHANGES = [
    (lambda state: state.pop("2.bias"), r"1 keys: missing 2\.bias$"),
    (lambda state: state.update({"8.weight": torch.zeros(1)}), r"1 keys: unknown 8\.weight$"),
    (lambda state: state.update({"6.weight": torch.zeros(1, 3)}), r"6\.weight is \[1, 3\], not \[1, 400\]$"),
    (lambda state: state.update({"0.bias": torch.full((400,), torch.inf)}), "not finite"),
    (lambda state: state.clear(), "holds no state"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_other_networks_are_refused(tmp_path, change, says) -> None:
    state = dict(network().state_dict())
    change(state)
    torch.save(state, tmp_path / "p.pth")
    with pytest.raises(UsageError, match=says):
        import_predictor(tmp_path / "p.pth", SPACE)


def test_other_spaces_are_refused(made_up) -> None:
    for name in ("ofa_mbv3_w1.0", "small_28"):
        with pytest.raises(UsageError, match=rf"published this predictor for ofa_mbv3_w1\.2, not for {name}"):
            import_predictor(made_up, load_space(name))


@pytest.fixture
def phone(ofa_deploy, tmp_path) -> Path:
    """A folder whose workspace knows a made-up phone in once-for-all's format, at 160 pixels."""
    entries = {}
    for op in PopulationCodec(SPACE.with_resolutions((160,))).ops:
        for key, (macs, moved) in ofa_entries(op).items():
            entries[key] = {"count": 400, "mean": 0.02 + macs / 1e7 + moved / 1e6, "std": 0.01}
    (tmp_path / "160_lookup_table.yaml").write_text(yaml.safe_dump(entries))
    assert ofa_deploy("import", "ofa-latency", ".", "--name", "phone", cwd=tmp_path).returncode == 0
    return tmp_path


def test_search_by_an_imported_predictor_needs_no_supernet(ofa_deploy, phone, made_up, predictor) -> None:
    done = ofa_deploy("import", "ofa-accuracy", str(made_up), "--name", "imagenet", "--json", cwd=phone)
    answer = json.loads(done.stdout)
    assert (answer["accuracy"], answer["space"]) == ("imagenet", SPACE.name)
    assert "4.8 points" in answer["source"]["note"]
    words = ["--target", "phone", "--max-ms", "60", "--confidence", "0.5"]
    done = ofa_deploy("search", *words, "--accuracy", "imagenet", "--json", cwd=phone)
    found = json.loads(done.stdout)
    expected = predictor.predict(predictor.codec.encode([found["arch"]]))[0][0]
    assert found["accuracy"] == pytest.approx(expected, abs=1e-9)
    assert found["arch"]["resolution"] == 160
    assert found["latency_ms"] <= 60
    other = ["--space", "ofa_mbv3_w1.2", "--random-weights", "--accuracy", "imagenet", "--json"]
    assert json.loads(ofa_deploy("search", *words, *other, cwd=phone).stdout)["arch"] == found["arch"]


def test_search_with_a_predictor_that_does_not_fit(ofa_deploy, phone, made_up) -> None:
    ofa_deploy("import", "ofa-accuracy", str(made_up), "--name", "imagenet", cwd=phone)
    search = ["search", "--max-ms", "60", "--accuracy"]
    for words, says in (
        (["nothing", "--target", "phone"], "unknown accuracy predictor 'nothing'; known: imagenet"),
        (["imagenet", "--target", "local"], "local was never measured in fp32"),
        (["imagenet", "--target", "phone", "--space", "ofa_mbv3_w1.0", "--random-weights"], "know ofa_mbv3_w1.0"),
    ):
        done = ofa_deploy(*search, *words, cwd=phone)
        errors = [line for line in done.stderr.splitlines() if line.startswith("ofa-deploy: error: ")]
        assert (done.returncode, done.stdout, len(errors)) == (2, "", 1)
        assert says in errors[0]


@PUBLISHED
@pytest.mark.skipif(not TABLES.is_dir(), reason="once-for-all's published tables are not here")
def test_the_published_pair_together(ofa_deploy, tmp_path) -> None:
    for words in (["ofa-latency", str(TABLES), "--name", "note10"], ["ofa-accuracy", str(FILE), "--name", "imagenet"]):
        assert ofa_deploy("import", *words, "--space", SPACE.name, cwd=tmp_path).returncode == 0
    words = ["--target", "note10", "--accuracy", "imagenet", "--max-ms", "25", "--confidence", "0.5", "--json"]
    found = json.loads(ofa_deploy("search", *words, cwd=tmp_path).stdout)
    assert found["accuracy"] > 0.81
    assert found["latency_ms"] <= 25
