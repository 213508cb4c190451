import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from ofa_deploy.blocks import random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.export import bundle as bundle_module
from ofa_deploy.export import changed_files, recompute, verify_bundle, write_bundle
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.latency import AuditedNetwork, LatencyModel, LatencyTable, Measurement, audit_summary
from ofa_deploy.space import PRESETS, network_macs, network_memory, network_params

SPACE = PRESETS["tiny_16"]
ARCH = SPACE.smallest
NETWORK = SPACE.network(ARCH)
SPECS = {op.key: op.to_json() for op in NETWORK.ops}
FILES = {"model.onnx": b"a model", "arch.json": b"{}"}


AUDITED = [
    {
        "key": f"{i}" * 64,
        "role": "audit",
        "predicted_ms": 1.0 + i,
        "std_ms": 0.02,
        "table_ms": 1.2 + i,
        "table_std_ms": 0.1,
        "measured_ms": 1.01 + i,
        "halves_ms": [1.0 + i, 1.02 + i],
    }
    for i in range(3)
]


def record(key, ops, timings, kind="op"):
    """A measurement record; its statistics are computed with numpy, not with the project's own functions."""
    bursts, rounds = np.ravel(timings), [float(np.median(t)) for t in timings]
    timings = [[float(f"{value:.7g}") for value in visit] for visit in timings]  # as records keep them
    spread = 1.4826 * np.median(np.abs(rounds - np.median(rounds)))
    return {
        "device": "local",
        "kind": kind,
        "key": key,
        "ops": ops,
        "specs": [SPECS[key] for key in ops],
        "condition": {"runtime": "onnxruntime", "simulated": False},
        "rounds": rounds,
        "timings": timings,
        "p50": float(np.median(rounds)),
        "p90": float(np.quantile(bursts, 0.9)),
        "p99": float(np.quantile(bursts, 0.99)),
        "n": len(bursts),
        "cov": float(np.std(bursts, ddof=1) / np.mean(bursts)),
        "se": float(1.2533 * spread / np.sqrt(len(rounds)) / np.median(rounds)),
        "flags": [],
        "measured_at": "2025-01-01T00:00:00Z",
    }


def timings(scale, rng):
    return (scale * (1 + 0.02 * rng.random((5, 3)))).tolist()


@pytest.fixture(scope="module")
def truthful():
    """The files of a bundle whose report follows from its evidence."""
    rng = np.random.default_rng(0)
    ops = [op.key for op in NETWORK.ops]
    records = [record(key, [key], timings(0.1, rng)) for key in dict.fromkeys(ops)]
    earlier, chosen = (record(NETWORK.key, ops, timings(ms * len(ops), rng), "network") for ms in (0.1, 0.11))
    table = LatencyTable.from_records("local", map(Measurement.from_json, [*records, earlier]))
    model = LatencyModel(table)
    (mean,), (std,) = model.predict([NETWORK])
    target = TargetProfile(name="local", description="a test's", runtime="onnxruntime")
    onnx_file = onnx_bytes(write_onnx(NETWORK, random_weights(NETWORK), target))
    logits = rng.standard_normal((4, 10)).astype(np.float32)
    other = logits + np.float32(1e-5)
    evidence = {
        "measurement": chosen,
        "test": {"labels": [1, 2, 3, 4], "predicted": [1, 2, 3, 9]},
        "parity": {"torch": logits.tolist(), "onnx": other.tolist()},
        "latency_model": model.to_json(),
        "audit": {"n_fit": 1, "networks": AUDITED},
    }
    (without,), (doubt,) = LatencyModel(table, []).predict([NETWORK])
    network = {"key": NETWORK.key, "role": "evidence", "measured_ms": earlier["p50"], "table_ms": table.total(NETWORK)}
    network |= {"predicted_ms": without, "std_ms": doubt}
    effects = [model.effects[key] for key in ops]
    now = LatencyModel(LatencyTable.from_records("local", map(Measurement.from_json, [*records, chosen]))).effects
    report = {
        "schema": 1,
        "budget": {"max_ms": 2.0, "statistic": "p50", "confidence": 0.95},
        "target": {"batch": 1, "precision": "fp32"},
        "subnet": {
            "key": ARCH.key,
            "arch": ARCH.to_json(),
            "macs": network_macs(NETWORK),
            "params": network_params(NETWORK),
            "memory_mb": network_memory(NETWORK) / 1e6,
        },
        "accuracy": {"predicted": 0.8, "measured": 0.75, "dataset": "digits", "split": "test", "n": 4},
        "latency": {
            "predicted_ms": mean,
            "std_ms": std,
            "upper_ms": mean + norm.ppf(0.95) * std,
            "table_ms": table.total(NETWORK),
            "measured_ms": {name: chosen[name] for name in ("p50", "p90", "p99", "n", "cov", "se")},
            "error_pct": 100 * (mean / chosen["p50"] - 1),
            "fits": True,
        },
        "parity": {"max_abs": float(np.abs(logits - other).max()), "top1_agreement": 1.0, "n": 4},
        "verdict": {"status": "fits", "text": "fits"},
        "audit": audit_summary([AuditedNetwork(**network) for network in AUDITED], 1).to_json(),
        "networks": [network, *AUDITED],
        "blocks": [
            {
                "name": name,
                "op": key,
                "table_ms": table.rows[key].p50,
                "posterior_ms": effect,
                "residual_ms": now[key] - effect,
                "share": effect / sum(effects),
            }
            for name, key, effect in zip(NETWORK.names, ops, effects, strict=True)
        ],
        "size_bytes": len(onnx_file),
        "provenance": {"space": SPACE.to_json()},
    }
    documents = {"arch.json": ARCH.to_json(), "evidence.json": evidence, "report.json": report}
    return {"model.onnx": onnx_file, **{name: json.dumps(d).encode() for name, d in documents.items()}}


def parent(document, path):
    """What holds the value at a path, and the value's key or place in it."""
    *parents, last = path.split(".")
    for key in parents:
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document, int(last) if isinstance(document, list) else last


def edited(files, name, path, value):
    """The files with one value of a JSON document replaced."""
    document = json.loads(files[name])
    at, last = parent(document, path)
    at[last] = value
    return {**files, name: json.dumps(document).encode()}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_truthful_bundle_verifies(tmp_path, truthful):
    folder = write_bundle(tmp_path / "deep" / "bundle", truthful, {"seed": 0})
    assert verify_bundle(folder) == []
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["schema"] == 1
    assert manifest["provenance"] == {"seed": 0}
    model = truthful["model.onnx"]
    assert manifest["files"]["model.onnx"] == {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_same_files_give_the_same_bytes(tmp_path, truthful):
    one = write_bundle(tmp_path / "one", truthful, {"a": 1, "b": 2})
    other = write_bundle(tmp_path / "other", dict(reversed(truthful.items())), {"b": 2, "a": 1})
    assert content(one) == content(other)


@pytest.mark.parametrize(
    "name", ["model.onnx", "arch.json", "evidence.json", "report.json", "manifest.json", "manifest.sha256"]
)
def test_one_flipped_bit_is_found_in_every_file(tmp_path, truthful, name):
    folder = write_bundle(tmp_path / "bundle", truthful, {"note": "text"})
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    assert any(name in problem for problem in verify_bundle(folder))


@pytest.mark.parametrize(
    "name", ["model.onnx", "arch.json", "evidence.json", "report.json", "manifest.json", "manifest.sha256"]
)
def test_a_missing_file_is_found(tmp_path, truthful, name):
    folder = write_bundle(tmp_path / "bundle", truthful, {})
    (folder / name).unlink()
    assert any(problem.startswith(f"{name} is missing") for problem in verify_bundle(folder))


def test_an_extra_file_is_found(tmp_path, truthful):
    folder = write_bundle(tmp_path / "bundle", truthful, {})
    (folder / "infer.py").write_text("")
    assert verify_bundle(folder) == ["infer.py is not in the manifest"]


def test_an_error_of_this_program_is_no_finding(tmp_path, truthful, monkeypatch):
    folder = write_bundle(tmp_path / "bundle", truthful, {})

    def wrong(error):
        def _part(bundle):
            raise error

        monkeypatch.setattr(recompute, "PARTS", [_part])

    for error in (NameError("x"), AssertionError(), AttributeError("no x", obj=[]), RuntimeError("odd")):
        wrong(error)
        with pytest.raises(type(error)):
            verify_bundle(folder)
    for error in (KeyError("x"), IndexError("x"), TypeError("odd"), ValueError("odd")):
        wrong(error)
        with pytest.raises(type(error)):
            verify_bundle(folder)
    for error in (UsageError("damaged"), ZeroDivisionError("division by zero"), OSError(5, "Input/output error")):
        wrong(error)
        assert verify_bundle(folder)[0].startswith("cannot recompute part: ")


def places(document, above=""):
    """The path of everything in a JSON document, but of all rows of a list the first two."""
    items = document.items() if isinstance(document, dict) else enumerate(document[:2])
    for key, value in items:
        yield f"{above}{key}"
        if isinstance(value, (dict, list)):
            yield from places(value, f"{above}{key}.")


def removed(files, name, path):
    """The files without one value of a JSON document."""
    document = json.loads(files[name])
    at, last = parent(document, path)
    del at[last]
    return {**files, name: json.dumps(document).encode()}


WORDS_OF_A_PROGRAM = ("Error", "object has no attribute", "not subscriptable")


@pytest.mark.parametrize("name", ["arch.json", "evidence.json", "report.json"])
def test_no_wrong_value_looks_like_an_error_of_this_program(tmp_path, truthful, name):
    kept = tmp_path / "bundle"
    write_bundle(kept, truthful, {})
    for i, path in enumerate(places(json.loads(truthful[name]))):
        values = (None, "nonsense", -1.5, [], {}, True)
        changed = [edited(truthful, name, path, values[i % len(values)]), removed(truthful, name, path)]
        for files in changed:
            (kept / name).write_bytes(files[name])
            for problem in recompute.wrong_figures(kept):
                assert not any(word in problem for word in WORDS_OF_A_PROGRAM), (path, problem)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("latency_model.table", None, "evidence.json: latency_model.table: "),
        ("latency_model.table.rows.0.p50", "fast", "evidence.json: latency_model.table.rows.0.p50: "),
        ("latency_model.table.rows.0.p50", 9.0, "does not match its digest"),
        ("latency_model.table.specs", {}, "evidence.json: latency_model.table: Value error, specs lacks "),
        ("measurement.specs.0.h", "wide", "evidence.json: measurement.specs.0: Value error, not an op: h is 'wide'"),
        ("parity.onnx", [[1.0, 2.0], [3.0]], "evidence.json: parity.onnx: "),
        ("test.predicted", [1], "not as many answers as labels"),
        ("audit.networks.0.key", "a" * 64, "report.json shows the network 000000000000"),
        ("measurement.timings", [[0.1], []], "evidence.json: measurement.timings.1: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path, truthful, path, value, says):
    folder = write_bundle(tmp_path / "bundle", edited(truthful, "evidence.json", path, value), {})
    assert any(says in problem for problem in verify_bundle(folder)), verify_bundle(folder)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("budget.statistic", None, "report.json: budget.statistic: Field required"),
        ("budget.statistic", "p42", "report.json: budget.statistic: Input should be 'p50', 'p90' or 'p99'"),
        ("budget", 3, "report.json: budget: Input should be a valid dictionary"),
        ("target.batch", 0, "report.json: target.batch: Input should be greater than or equal to 1"),
        ("networks.1.role", None, "report.json: networks.1.role: Field required"),
        ("latency.session_std", "much", "report.json: latency.session_std: "),
        ("provenance.space", "tiny_16", "report.json: provenance.space: "),
    ],
)
def test_what_figures_are_computed_with_must_be_there_and_right(tmp_path, truthful, path, value, says):
    files = removed(truthful, "report.json", path) if value is None else edited(truthful, "report.json", path, value)
    folder = write_bundle(tmp_path / "bundle", files, {})
    assert any(says in problem for problem in verify_bundle(folder)), verify_bundle(folder)


def test_changed_files_are_found_without_computing_a_figure(tmp_path, truthful, monkeypatch):
    folder = write_bundle(tmp_path / "bundle", truthful, {})
    monkeypatch.setattr(bundle_module, "wrong_figures", lambda _: pytest.fail("that takes long"))
    assert changed_files(folder) == []
    (folder / "arch.json").write_bytes(b" " + truthful["arch.json"])
    assert changed_files(folder) == ["arch.json was changed: its content does not match the manifest"]
    (folder / "manifest.json").unlink()
    assert changed_files(folder) == changed_files(tmp_path / "absent") == ["manifest.json is missing or cannot be read"]


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no bundle at"):
        verify_bundle(tmp_path / "absent")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("latency.measured_ms.p50", 0.5),
        ("latency.measured_ms.p90", 0.5),
        ("latency.measured_ms.n", 999),
        ("latency.measured_ms.cov", 0.0),
        ("latency.error_pct", 5.0),
        ("latency.fits", False),
        ("latency.predicted_ms", 0.5),
        ("latency.std_ms", 0.5),
        ("latency.upper_ms", 0.5),
        ("latency.table_ms", 0.5),
        ("verdict.status", "over"),
        ("budget.max_ms", 0.01),
        ("accuracy.measured", 0.99),
        ("accuracy.measured", None),
        ("accuracy.n", 10000),
        ("parity.max_abs", 0.0),
        ("parity.top1_agreement", 0.5),
        ("subnet.macs", 1),
        ("subnet.params", 1),
        ("subnet.memory_mb", 1.0),
        ("subnet.key", "0" * 64),
        ("blocks.0.posterior_ms", 9.0),
        ("blocks.0.residual_ms", 0.0),
        ("audit.mape", 0.0),
        ("audit.repeatability", 0.0),
        ("audit.status", "not trusted"),
        ("audit.table_only.within_10", 1.0),
        ("networks.1.predicted_ms", 9.0),
        ("networks.0.predicted_ms", 9.0),
        ("networks.0.measured_ms", 9.0),
        ("size_bytes", 1),
    ],
)
def test_a_report_that_its_evidence_does_not_give_is_found_though_every_hash_is_right(tmp_path, truthful, path, value):
    folder = write_bundle(tmp_path / "bundle", edited(truthful, "report.json", path, value), {})
    problems = verify_bundle(folder)
    assert problems
    assert all("report.json says" in problem for problem in problems)


def test_a_report_that_hides_its_audit_is_found(tmp_path, truthful):
    folder = write_bundle(tmp_path / "bundle", edited(truthful, "report.json", "audit", None), {})
    assert any("no audit.mape" in problem for problem in verify_bundle(folder))


def test_a_report_without_a_figure_is_found(tmp_path, truthful):
    report = json.loads(truthful["report.json"])
    del report["latency"]["measured_ms"]["p90"]
    folder = write_bundle(tmp_path / "bundle", {**truthful, "report.json": json.dumps(report).encode()}, {})
    assert any("no latency.measured_ms.p90" in problem for problem in verify_bundle(folder))


@pytest.mark.parametrize(
    ("name", "path", "value", "expected"),
    [
        ("arch.json", "depths", [2, 2], "subnet.macs"),
        ("arch.json", "depths", [9, 9], "cannot recompute subnet"),
        ("evidence.json", "measurement.ops", ["another"], "network that was measured"),
        ("evidence.json", "measurement.timings", "nonsense", "evidence.json: measurement.timings: "),
        ("evidence.json", "measurement", None, "latency.fits"),
        ("evidence.json", "parity", None, "evidence.json: parity: "),
    ],
)
def test_other_evidence_is_found(tmp_path, truthful, name, path, value, expected):
    folder = write_bundle(tmp_path / "bundle", edited(truthful, name, path, value), {})
    assert any(expected in problem for problem in verify_bundle(folder))


def test_the_model_of_another_network_is_found(tmp_path, truthful):
    other = SPACE.network(SPACE.largest)
    target = TargetProfile(name="local", description="a test's", runtime="onnxruntime")
    model = onnx_bytes(write_onnx(other, random_weights(other), target))
    folder = write_bundle(tmp_path / "bundle", {**truthful, "model.onnx": model}, {})
    assert any("model.onnx holds" in problem for problem in verify_bundle(folder))


def test_what_was_not_measured_is_null_and_verifies(tmp_path, truthful):
    files = truthful
    for path in ("measurement", "test"):
        files = edited(files, "evidence.json", path, None)
    absent = ["latency.measured_ms", "latency.error_pct", "latency.fits", "accuracy.measured"]
    for path in [*absent, *(f"blocks.{i}.residual_ms" for i in range(len(NETWORK.ops)))]:
        files = edited(files, "report.json", path, None)
    assert verify_bundle(write_bundle(tmp_path / "bundle", files, {})) == []


def test_a_write_that_fails_leaves_the_old_bundle_and_no_litter(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path / "bundle", FILES, {})
    before = content(folder)
    written = []

    def full_disk(path, data):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        Path(path).write_bytes(data)

    monkeypatch.setattr(bundle_module, "_write", full_disk)
    with pytest.raises(OfaDeployError, match="No space left on device"):
        write_bundle(folder, {**FILES, "more.txt": b"x"}, {})
    assert len(written) == 3
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_swap_that_fails_puts_the_old_bundle_back(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path / "bundle", FILES, {})
    before = content(folder)
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OfaDeployError, match="Input/output error"):
        write_bundle(folder, {"model.onnx": b"newer"}, {})
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_newer_bundle_replaces_an_older_one_whole(tmp_path):
    folder = write_bundle(tmp_path / "bundle", {**FILES, "old.txt": b"old"}, {})
    write_bundle(folder, {"model.onnx": b"newer"}, {})
    assert sorted(content(folder)) == ["manifest.json", "manifest.sha256", "model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path):
    folder = write_bundle(tmp_path / "bundle", FILES, {})
    (folder / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for place in (folder, tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="choose another"):
            write_bundle(place, FILES, {})
    assert (folder / "thesis.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "file"]


def test_an_empty_folder_becomes_the_bundle(tmp_path):
    (tmp_path / "bundle").mkdir()
    assert sorted(content(write_bundle(tmp_path / "bundle", {}, {}))) == ["manifest.json", "manifest.sha256"]


@pytest.mark.parametrize("name", ["../escape", "a/b", "", "manifest.json"])
def test_names_with_folders_or_of_the_manifest_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name"):
        write_bundle(tmp_path / "bundle", {name: b""}, {})
    assert list(tmp_path.iterdir()) == []
