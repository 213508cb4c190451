"""Large bodies: the same answer as for small ones, and nobody waits for them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from ofa_deploy.fleet.bodies import answer, parse, read_body
from ofa_deploy.fleet.schemas import Claim, RunResult

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES, st.sampled_from([None, 0, 3]), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_parsed_as_the_standard_library_does(value, indent, ascii_only, encoding):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse(text.encode(encoding)) == value


@given(VALUES, st.data())
def test_what_is_no_json_is_refused_where_the_standard_library_refuses_it(value, data):
    text = json.dumps(value)
    cut = data.draw(st.integers(0, len(text)))
    broken = (
        text[:cut] + data.draw(st.sampled_from(["", ",", "]", "}", '"', ":", "x", " 1", "[", "{"])) + text[cut + 1 :]
    )
    try:
        expected = json.loads(broken)
    except ValueError:
        with pytest.raises(json.JSONDecodeError):
            parse(broken.encode())
    else:
        assert parse(broken.encode()) == expected


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_nested_without_end(body):
    with pytest.raises((ValueError, RecursionError)):
        parse(body)


def test_a_refusal_names_the_item_and_the_reason():
    item = {"item": "job.7", "burst": 1, "timings": [[1.0, 1.0]] * 3}
    body = {"items": [item, {**item, "item": "job.8", "timings": [[1.0, math.nan]] * 3}]}
    with pytest.raises(HTTPException) as error:
        read_body(json.dumps(body).encode(), RunResult)
    assert error.value.status_code == 422
    assert error.value.detail == ("body.items.1.timings.0.1 (item job.8): Input should be a finite number")
    for wrong in ([], None, 1, "x", {"facts": 1}):
        with pytest.raises(HTTPException, match=r"body"):
            read_body(json.dumps(wrong).encode(), Claim)


def test_an_answer_is_json():
    for content in ([], [1, {"ü": None}], {"a": [1.5]}):
        assert json.loads(answer(content).body) == content
