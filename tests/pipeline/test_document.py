"""A pipeline's document: parameters, targets, and errors that say where."""

from pathlib import Path

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.pipeline.question import read_pipeline

TEXT = """name: small
parameters: {ms: 5, who: jetson_nano, budgets: [4, 5]}
targets:
  local:
  two: {profile: local, threads: 2}
stages:
  - {stage: import, supernet: digits}
  - {stage: extract, target: "${who}", max_ms: "${ms}"}
  - {stage: compare, title: "${who} at ${ms} ms"}
gates:
  - latency.p50 <= ${ms}
  - {check: size_mb <= 8, targets: [two]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_parameters_keep_their_types_and_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    _, extract, compare = read_pipeline(path).stages
    assert (extract.named, extract.max_ms, compare.title) == (("jetson_nano",), (5.0,), "jetson_nano at 5 ms")
    document = read_pipeline(path, {"ms": "7.5"})
    assert document.stages[1].max_ms == (7.5,)
    assert [gate.check for gate in document.gates] == ["latency.p50 <= 7.5", "size_mb <= 8"]


def test_a_parameter_can_be_a_list(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT.replace('max_ms: "${ms}"', 'max_ms: "${budgets}"'))
    assert read_pipeline(path).stages[1].max_ms == (4.0, 5.0)
    assert read_pipeline(path, {"budgets": "[1, 2]"}).stages[1].max_ms == (1.0, 2.0)


def test_a_target_is_a_profile_or_what_differs_from_one(tmp_path: Path) -> None:
    document = read_pipeline(written(tmp_path, TEXT))
    assert document.targets == {"local": {}, "two": {"profile": "local", "threads": 2}}
    assert [gate.targets for gate in document.gates] == [(), ("two",)]


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("max_ms: \"${ms}\"", "max_ms: \"${other}\"", "there is no parameter 'other'; there are: ms, who, budgets"),
        ("max_ms:", "max_mss:", "small.yaml:8: stages.1.extract.max_mss: unknown key"),
        ("size_mb <= 8", "size <= 8", "small.yaml:12: gates.1.check: there is no 'size' to check; there are"),
        ("size_mb <= 8", "size_mb = 8", "'size_mb = 8' is no gate; write one as"),
        ("target: \"${who}\"", "target: a, targets: [b]", "small.yaml:8: stages.1.extract: give target or targets"),
        ("stage: import", "stage: imports", "small.yaml:7: stages.0"),
    ],
)  # fmt: skip
def test_errors_say_where(was: str, now: str, says: str, tmp_path: Path) -> None:
    assert was in TEXT
    with pytest.raises(UsageError) as error:
        read_pipeline(written(tmp_path, TEXT.replace(was, now)))
    assert says in str(error.value)


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no parameter 'max'"):
        read_pipeline(written(tmp_path, TEXT), {"max": "3"})
