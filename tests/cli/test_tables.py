"""`lut` and `import` as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa_deploy.blocks import counts
from ofa_deploy.fleet.table_files import import_table
from ofa_deploy.latency import LatencyTable, Measurement, Row
from ofa_deploy.latency.importers import ofa_entries
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import Workspace

SPACE = load_space("tiny_16")
CONDITION = {"runtime": "onnxruntime", "runtime_version": "1", "precision": "fp32", "threads": 1, "simulated": False}


def a_table(scale: float = 1.0, seed: int = 0, **condition) -> LatencyTable:
    rng = np.random.default_rng(seed)
    times = {
        op.key: scale * (0.005 + counts.macs(op.block) / 4e7) * rng.normal(1, 0.01) for op in PopulationCodec(SPACE).ops
    }
    rows = {key: Row(key, (key,), ms, ms, ms, 72, 0.02, 0.01) for key, ms in times.items()}
    return LatencyTable("made-up", {**CONDITION, **condition}, rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose workspace holds the tables of two devices, one measured twice."""
    with Workspace.open(tmp_path / ".ofa") as opened:
        import_table(opened, a_table(), "phone")
        import_table(opened, a_table(1.25, seed=1), "phone")
        import_table(opened, a_table(3.0, runtime_version="2"), "board")
    return tmp_path


@pytest.fixture
def arch(folder: Path) -> str:
    (folder / "arch.json").write_text(json.dumps(SPACE.smallest.to_json()))
    return "arch.json"


def test_an_imported_table_is_a_target_for_questions_but_not_for_measuring(ofa_deploy, folder, arch) -> None:
    predicted = json.loads(ofa_deploy("predict", "--target", "phone", arch, "--json", cwd=folder).stdout)
    want = a_table(1.25, seed=1).total(SPACE.network(SPACE.smallest))
    assert predicted[0]["mean_ms"] == pytest.approx(want)
    search = ["search", "--target", "phone", "--space", "tiny_16", "--random-weights", "--max-ms", "1", "--json"]
    assert json.loads(ofa_deploy(*search, cwd=folder).stdout)["upper_ms"] <= 1
    measuring = (
        ["profile", "--target", "phone", "--space", "tiny_16"],
        ["profile", "--target", "phone", "--space", "tiny_16", "--networks", "0"],
        ["audit", "--target", "phone", "--space", "tiny_16"],
        ["extract", "--target", "phone", "--space", "tiny_16", "--random-weights", "--max-ms", "1"],
    )
    for command in measuring:
        done = ofa_deploy(*command, cwd=folder)
        assert (done.returncode, done.stdout) == (5, "")
        assert len(done.stderr.splitlines()) == 1
        assert "phone cannot be measured: its table was imported" in done.stderr


def test_show(ofa_deploy, folder) -> None:
    one = ofa_deploy("lut", "show", "phone", cwd=folder).stdout.splitlines()
    assert one[0].split() == ["ms", "p50", "p90", "p99", "±", "n"]
    assert len(one) == 1 + len(a_table().rows) + 2
    assert "phone: 122 blocks, 0 networks, 0 flagged" in one[-1]
    both = ofa_deploy("lut", "show", "phone", "board", cwd=folder).stdout.splitlines()
    assert both[0].split() == ["p50,", "ms", "phone", "board"]
    ends = {line.rstrip().rfind(line.split()[-1]) + len(line.split()[-1]) for line in both[1:100]}
    assert len(ends) == 1, "the last column is not aligned"
    assert [line.split(":")[0] for line in both if " blocks, " in line] == ["phone", "board"]
    assert json.loads(ofa_deploy("lut", "show", "phone", "--json", cwd=folder).stdout)["device"] == "phone"
    documents = json.loads(ofa_deploy("lut", "show", "phone", "board", "--json", cwd=folder).stdout)
    assert [document["device"] for document in documents] == ["phone", "board"]


def test_diff_of_two_targets_and_of_one_in_time(ofa_deploy, folder) -> None:
    text = ofa_deploy("lut", "diff", "phone", "board", cwd=folder).stdout
    assert "the conditions differ: runtime_version was 1, is 2" in text
    assert "122 rows in common, median change +14" in text
    answer = json.loads(ofa_deploy("lut", "diff", "phone", "--json", cwd=folder).stdout)
    assert answer["median_change"] == pytest.approx(0.25, abs=0.01)
    assert answer["changed"] == 1.0
    once = ofa_deploy("lut", "diff", "board", cwd=folder)
    assert once.returncode == 2
    assert "no row of board was measured twice" in once.stderr
    assert ofa_deploy("lut", "export", "phone", "-o", "p.json", cwd=folder).returncode == 0
    assert "median change +0.0 %" in ofa_deploy("lut", "diff", "phone", "p.json", cwd=folder).stdout


def test_export_and_import_both_ways(ofa_deploy, folder) -> None:
    for name, options in (("t.json", []), ("t.csv", ["--space", "tiny_16"])):
        assert ofa_deploy("lut", "export", "phone", "-o", name, cwd=folder).returncode == 0
        done = ofa_deploy("lut", "import", name, "--name", f"copy-{name[2:]}", *options, "--json", cwd=folder)
        answer = json.loads(done.stdout)
        assert (answer["blocks"], answer["target"]) == (122, f"copy-{name[2:]}")
    assert list(answer["covers"]) == ["16", "20", "24"]
    with Workspace.open(folder / ".ofa") as opened:
        records = [Measurement.from_json(record) for record in opened.store.measurements("copy-json")]
    want = LatencyTable.load(folder / "t.json")
    assert (
        LatencyTable.from_records("phone", records) == want == LatencyTable.load(folder / ".ofa/tables/phone-fp32.json")
    )


def test_garbage_is_refused_and_nothing_is_stored(ofa_deploy, folder) -> None:
    ofa_deploy("lut", "export", "phone", "-o", "t.csv", cwd=folder)
    good = (folder / "t.csv").read_text().splitlines()
    for micros in ("nan", "-1", "0", "1e12", str(1000 * float(good[9].split(",")[9]))):
        values = good[9].split(",")
        (folder / "t.csv").write_text("\n".join([*good[:9], ",".join([*values[:9], micros, ""]), *good[10:]]))
        done = ofa_deploy("lut", "import", "t.csv", "--name", "new", "--space", "tiny_16", cwd=folder)
        assert done.returncode == 2
        assert "t.csv:10: " in done.stderr
        assert "nothing of the file was stored" in done.stderr
    assert "unknown target 'new'; known: " in ofa_deploy("lut", "show", "new", cwd=folder).stderr


def test_once_for_alls_tables(ofa_deploy, tmp_path) -> None:
    space = load_space("ofa_mbv3_w1.2")
    entries = {}
    for op in PopulationCodec(space.with_resolutions((160,))).ops:
        for key, (macs, moved) in ofa_entries(op).items():
            entries[key] = {"count": 400, "mean": 0.02 + macs / 1e7 + moved / 1e6, "std": 0.01}
    (tmp_path / "160_lookup_table.yaml").write_text(yaml.safe_dump(entries))
    done = ofa_deploy("import", "ofa-latency", ".", "--name", "note10", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert list(answer["covers"]) == ["160"]
    part = space.with_resolutions((160,))
    ops = part.network(part.largest).ops
    largest = sum(entries[key]["mean"] for op in ops for key in ofa_entries(op))
    assert answer["covers"]["160"]["largest_ms"] == pytest.approx(largest, abs=1e-6)
    options = ["--space", "ofa_mbv3_w1.2", "--random-weights", "--max-ms", "99"]
    done = ofa_deploy("search", "--target", "note10", *options, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["arch"]["resolution"] == 160
    done = ofa_deploy("search", "--target", "note10", *options, "--statistic", "p99", cwd=tmp_path)
    assert (done.returncode, "one value a block, no p99" in done.stderr) == (2, True)


BAD = [
    (["lut", "export", "phone", "-o", "t.txt"], "must end in .json or .csv"),
    (["lut", "export", "phone", "-o", "t.json", "--resolution", "20"], "must end in .json or .csv"),
    (["lut", "export", "local", "-o", "t.csv"], "local has no latency table yet; measure it with: ofa-deploy profile"),
    (["lut", "import", "t.csv", "--name", "x"], "give it with --space"),
    (["lut", "import", "t.txt", "--name", "x"], "must end in .json or .csv"),
    (["lut", "import", "t.json", "--name", "x", "--resolution", "160"], "--resolution is for CSV"),
    (["lut", "import", "p.json", "--name", "local"], "local is a target that is measured"),
    (["lut", "import", "p.json", "--name", "a/b"], "is not a name for a target"),
    (["lut", "import", "p.json", "--name", "a.csv"], "is not a name for a target"),
    (["lut", "diff", "phone", "toaster"], "local, phone, raspberry_pi_4"),
    (["import", "ofa-latency", "none", "--name", "x"], "there is no RESOLUTION_lookup_table.yaml in none"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_one_clear_line(ofa_deploy, folder, arguments, says) -> None:
    a_table().save(folder / "p.json")
    done = ofa_deploy(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
