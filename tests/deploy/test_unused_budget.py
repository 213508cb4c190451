"""A report says what share of its budget an answer uses, and why not more."""

from dataclasses import replace

import pytest

from ofa_deploy.deploy.notes import notes_on
from ofa_deploy.deploy.subject import random_subject
from ofa_deploy.deploy.unused_budget import unused_notes
from ofa_deploy.fleet.profiling import profile
from ofa_deploy.search import Constraints
from tests.deploy.test_extract import SPACE, TARGET, MadeUpFleet, extract


@pytest.fixture
def found(workspace):
    """An extraction whose answer is said to take 0.08 ms of 0.16 ms."""
    fleet = MadeUpFleet(workspace, factor=1.0)
    profile(fleet, workspace, TARGET, SPACE, networks=6)
    result = extract(fleet, workspace, random_subject(SPACE), TARGET, Constraints(max_ms=0.16))
    chosen = taking(result.chosen, 0.08, 0.5)
    return replace(result, chosen=chosen, finalists=[chosen])


def taking(finalist, ms, accuracy, predicted=0.1):
    record = finalist.record.model_copy(update={"p50": ms})
    point = replace(finalist.point, accuracy=accuracy, latency_ms=0.1, upper_ms=0.125)
    return replace(finalist, point=point, records=(record,), levels=(None,), predicted_ms=predicted)


def said(found, *others):
    (note,) = unused_notes(replace(found, finalists=[found.chosen, *others]), found.chosen)
    assert note in notes_on(replace(found, finalists=[found.chosen, *others]), found.chosen)
    return note


def test_nothing_more_accurate_was_found(found):
    worse = taking(found.chosen, 0.15, 0.4)
    note = said(found, worse)
    assert note.startswith("The answer uses 50 % of the budget. The search found no subnet that fits and is expected")
    assert "predicted to need up to 0.128 ms" in note


def test_what_is_more_accurate_took_too_long(found):
    note = said(found, taking(found.chosen, 0.21, 0.6, 0.17), taking(found.chosen, 0.25, 0.7, 0.18))
    assert "2 finalists that are expected to be more accurate took 0.21 to 0.25 ms (predicted 0.17 to 0.18 ms)." in note
    assert "measure the device again with: ofa-deploy profile --target made-up --precision fp32 --refresh" in note
    exact = said(found, taking(found.chosen, 0.21, 0.6, 0.209))
    assert exact.endswith("One finalist that is expected to be more accurate took 0.21 ms (predicted 0.209 ms).")


def test_what_is_more_accurate_left_no_room(found):
    note = said(replace(found, session_std=0.031), taking(found.chosen, 0.159, 0.6))
    assert note.endswith(
        "took 0.159 ms: that leaves no room for another session, of which one differs from the next by 3.1 %."
    )


def test_nothing_is_said_where_the_budget_is_used_or_there_is_none(found):
    assert unused_notes(found, taking(found.chosen, 0.15, 0.5)) == []
    free = replace(found, constraints=Constraints(max_macs=1e9))
    assert unused_notes(free, found.chosen) == []


def test_a_budget_that_does_not_bind_is_told_as_such(found):
    loose = replace(found, constraints=Constraints(max_ms=50))
    (note,) = unused_notes(loose, found.chosen)
    assert note.startswith("The budget does not bind: the largest subnet of narrow takes")
