import threading
import time
from dataclasses import replace

import pytest

from ofa_deploy.store import ItemFailure, NewItem, StaleRun
from ofa_deploy.store.jobs import insert
from ofa_deploy.store.schema import ItemRow


@pytest.fixture
def jobs(store):
    return store.jobs


@pytest.fixture
def runs(store):
    return store.runs


def items(*positions):
    return [NewItem(p, f"blob{p}", {"key": f"k{p}"}) for p in positions]


def record(run, item):
    fields = {"run": run.run, "item": item.item, "key": item.payload["key"]}
    return {"device": "d", "kind": "op", "condition": {}, "measured_at": "2025-01-01T00:00:00Z", **fields}


def finish(runs, run, digest="digest"):
    return runs.finish(run.run, digest, {i.item: record(run, i) for i in run.items}, {}, {"level": run.chunk})


def test_a_job_from_queue_to_records(jobs, runs):
    jobs.create("j", "d", {}, [items(0, 2), items(1)])
    assert jobs.needed_models() == {"blob0", "blob1", "blob2"}
    assert jobs.unneeded_models("j") == set()
    assert jobs.waiting() == {("d", "")}
    first = runs.claim("d", "", 60)
    assert [i.position for i in first.items] == [0, 2]
    assert jobs.status("j").running == 2
    finish(runs, first)
    second = runs.claim("d", "", 60)
    assert second.reference == {"level": 0}
    finish(runs, second)
    assert runs.claim("d", "", 60) is None
    status = jobs.status("j")
    assert (status.state, status.done, status.failed) == ("done", 3, 0)
    assert [jobs.records("j")[p]["key"] for p in range(3)] == ["k0", "k1", "k2"]
    assert jobs.needed_models() == jobs.waiting() == set()
    assert jobs.unneeded_models("j") == {"blob0", "blob1", "blob2"}


def test_work_goes_to_its_device_and_queue_only(jobs, runs):
    jobs.create("j", "d", {}, [items(0)], queue="q")
    assert runs.claim("other", "q", 60) is None
    assert runs.claim("d", "", 60) is None
    assert runs.claim("d", "q", 60).job == "j"


def test_a_result_that_is_sent_twice_counts_once(jobs, runs, store):
    jobs.create("j", "d", {}, [items(0)])
    run = runs.claim("d", "", 60)
    assert finish(runs, run) is True
    assert finish(runs, run) is False
    with pytest.raises(StaleRun):
        finish(runs, run, "another digest")
    assert len(store.measurements("d")) == 1


def test_a_lease_that_ends_gives_the_chunk_to_a_new_run(jobs, runs, store):
    jobs.create("j", "d", {}, [items(0)])
    old = runs.claim("d", "", -1)
    new = runs.claim("d", "", 60)
    assert (old.attempt, new.attempt) == (1, 2)
    for stale in (
        lambda: runs.beat(old.run, {}, 60),
        lambda: finish(runs, old),
        lambda: runs.beat("unknown", {}, 60),
    ):
        with pytest.raises(StaleRun):
            stale()
    runs.beat(new.run, {"phase": "rounds"}, 60)
    assert jobs.status("j").progress == {"phase": "rounds"}
    finish(runs, new)
    assert len(store.measurements("d")) == 1


def test_a_chunk_that_no_agent_survives_fails_in_the_end(jobs, runs):
    jobs.create("j", "d", {}, [items(0)])
    for attempt in (1, 2, 3):
        assert runs.claim("d", "", -1).attempt == attempt
    assert runs.claim("d", "", 60) is None
    status = jobs.status("j")
    assert (status.state, status.failed, status.errors[0].reason) == ("done", 1, "timeout")


def test_what_cannot_be_measured_is_not_tried_again(jobs, runs):
    jobs.create("j", "d", {}, [items(0), items(1)])
    first = runs.claim("d", "", 60)
    runs.give_back(first.run, {"reason": "worker-shutdown", "message": "bye"}, retry=True)
    again = runs.claim("d", "", 60)
    assert again.chunk == 0
    runs.give_back(again.run, {"reason": "unsupported-op", "message": "no such op"}, retry=False)
    finish(runs, runs.claim("d", "", 60))
    status = jobs.status("j")
    assert (status.state, status.done, status.failed) == ("done", 1, 1)
    assert status.errors == (ItemFailure(0, "k0", "unsupported-op", "no such op"),)


def test_a_cancelled_job_takes_no_results(jobs, runs):
    jobs.create("j", "d", {}, [items(0), items(1)])
    run = runs.claim("d", "", 60)
    jobs.cancel("j")
    with pytest.raises(StaleRun):
        finish(runs, run)
    assert runs.claim("d", "", 60) is None
    assert jobs.status("j").state == "cancelled"


def test_the_jobs_of_a_queue_that_nobody_serves_end(jobs, runs):
    for job, queue in (("a", "gone"), ("b", "gone"), ("c", "other")):
        jobs.create(job, "d", {}, [items(0)], queue)
    run = runs.claim("d", "gone", 60)
    jobs.cancel_queue("gone")
    assert [jobs.status(job).state for job in "abc"] == ["cancelled", "cancelled", "active"]
    with pytest.raises(StaleRun):
        finish(runs, run)


def test_agents_that_claim_at_once_get_different_chunks(jobs, runs):
    jobs.create("j", "d", {}, [items(i) for i in range(8)])
    got = []

    def claim():
        for _ in range(2):
            got.append(runs.claim("d", "", 60).chunk)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(8))


def test_unknown_job(jobs, runs):
    assert jobs.status("nope") is None
    jobs.cancel("nope")


def test_a_job_that_is_there_stays_as_it_is(jobs):
    for position in (0, 1):
        jobs.create("j", "d", {}, [items(position)])
    assert jobs.status("j").total == 1


def test_a_model_that_another_job_needs_stays(jobs, runs):
    for job in "ab":
        jobs.create(job, "d", {}, [items(0)])
    assert finish(runs, runs.claim("d", "", 60))
    assert jobs.unneeded_models("a") == set()
    jobs.cancel("b")
    assert jobs.unneeded_models("a") == {"blob0"}


def test_an_agent_that_comes_back_goes_on_with_its_run(jobs, runs):
    jobs.create("j", "d", {}, [items(0), items(1)])
    run = runs.claim("d", "", 60)
    assert runs.claim("d", "", 60, resume=run.run).run == run.run, "its lease holds"
    late = runs.claim("d", "", -1)
    assert runs.claim("d", "", 60, resume=late.run) == replace(late, state="running"), "nobody else has the chunk"
    assert finish(runs, late)
    assert runs.claim("other", "", 60, resume=run.run) is None
    assert runs.claim("d", "other", 60, resume=run.run) is None


def test_a_run_that_was_given_away_cannot_be_gone_on_with(jobs, runs):
    jobs.create("j", "d", {}, [items(0)])
    old = runs.claim("d", "", -1)
    new = runs.claim("d", "", 60)
    assert runs.claim("d", "", 60, resume=old.run) is None
    assert finish(runs, new)
    assert runs.claim("d", "", 60, resume=new.run) is runs.claim("d", "", 60, resume="unknown") is None


def test_a_result_that_comes_late_counts_where_nobody_else_has_the_chunk(jobs, runs, store):
    jobs.create("j", "d", {}, [items(0)])
    run = runs.claim("d", "", -1)
    runs.expire()
    assert jobs.waiting()
    assert finish(runs, run) is True
    assert jobs.status("j").state == "done"
    assert len(store.measurements("d")) == 1


def test_no_sign_of_life_prolongs_a_run_beyond_its_limit(jobs, runs):
    jobs.create("j", "d", {}, [items(0)], run_s=0.05)
    run = runs.claim("d", "", 60)
    runs.beat(run.run, {"phase": "rounds"}, 60)
    time.sleep(0.1)
    assert runs.expire() == []
    with pytest.raises(StaleRun, match="expired"):
        runs.beat(run.run, {"phase": "rounds"}, 60)
    assert runs.claim("d", "", 60).attempt == 2


def test_a_job_that_nobody_takes_fails_at_its_deadline_and_one_that_was_taken_does_not(jobs, runs):
    jobs.create("taken", "d", {}, [items(0), items(1)], queue_s=-1)
    jobs.create("left", "away", {}, [items(0), items(1)], queue_s=-1)
    assert runs.claim("away", "other", 60) is None
    status = jobs.status("left")
    assert (status.state, status.failed) == ("done", 2)
    assert "no agent of away took the job" in status.errors[0].message
    jobs.create("now", "d", {}, [items(0), items(1)], queue_s=0.2)
    assert runs.claim("d", "", 60).job == "now"
    time.sleep(0.3)
    assert runs.expire() == []
    assert jobs.status("now").state == "active"


def test_the_jobs_of_a_device_that_is_gone_end(jobs):
    for job, device in (("a", "gone"), ("b", "other")):
        jobs.create(job, device, {}, [items(0)])
    assert jobs.cancel_device("gone") == ["a"]
    assert [job.state for job in jobs.of_device("gone")] == ["cancelled"]


def test_results_that_come_at_once_end_the_job(jobs, runs, store):
    jobs.create("j", "d", {}, [items(i) for i in range(6)])
    claimed = [runs.claim("d", "", 60) for _ in range(6)]
    threads = [threading.Thread(target=finish, args=(runs, run)) for run in claimed]
    threads += [threading.Thread(target=finish, args=(runs, run)) for run in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jobs.status("j").state == "done"
    assert len(store.measurements("d")) == 6


@pytest.fixture
def at_the_last_part(monkeypatch):
    """``at_the_last_part(call)``: what happens when the last of a job's three parts is about to be written."""

    def arrange(call):
        parts = []

        def watched(kind):
            parts.append(kind)
            if parts.count(ItemRow) == 3:
                monkeypatch.setattr("ofa_deploy.store.jobs.insert", insert)
                call()
            return insert(kind)

        monkeypatch.setattr("ofa_deploy.store.jobs.BATCH_ITEMS", 2)
        monkeypatch.setattr("ofa_deploy.store.jobs.insert", watched)

    return arrange


def test_a_large_job_is_there_when_all_of_it_is(jobs, runs, store, at_the_last_part):
    def fail():
        assert (jobs.status("j"), jobs.waiting(), runs.claim("d", "", 60)) == (None, set(), None)
        assert (jobs.of_device("d"), store.overview.jobs(9)) == ([], [])
        assert jobs.needed_models() == {f"blob{i}" for i in range(5)}
        raise KeyboardInterrupt

    at_the_last_part(fail)
    with pytest.raises(KeyboardInterrupt):
        jobs.create("j", "d", {}, [items(*range(5))])
    assert jobs.status("j") is None
    jobs.create("j", "d", {}, [items(0, 1), items(2, 3, 4)])
    assert (jobs.status("j").total, jobs.status("j").state) == (5, "active")
    assert [item.payload["key"] for item in runs.claim("d", "", 60).items] == ["k0", "k1"]


def test_what_is_left_of_a_job_that_never_arrived_is_forgotten(jobs, at_the_last_part):
    def fail():
        raise KeyboardInterrupt

    at_the_last_part(fail)
    with pytest.raises(KeyboardInterrupt):
        jobs.create("j", "d", {}, [items(*range(5))])
    jobs.drop_unfinished(60)
    assert len(jobs.needed_models()) == 5, "it may be arriving still"
    jobs.drop_unfinished(-60)
    assert jobs.needed_models() == set()
    jobs.create("j", "d", {}, [items(0)])
    assert jobs.status("j").total == 1


def test_a_job_that_is_cancelled_while_it_arrives_stays_so(jobs, runs, monkeypatch):
    def cancelled(job, *more):
        yield [{**vars(items(0)[0]), "id": "j.0", "chunk_id": "j-0", "job_id": "j"}]
        jobs.cancel("j")
        yield [{**vars(items(1)[0]), "id": "j.1", "chunk_id": "j-0", "job_id": "j"}]

    monkeypatch.setattr("ofa_deploy.store.jobs._batches", cancelled)
    jobs.create("j", "d", {}, [items(0, 1)])
    assert jobs.status("j").state == "cancelled"
    assert runs.claim("d", "", 60) is None
