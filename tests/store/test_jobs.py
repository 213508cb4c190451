import threading

import pytest

from ofa_deploy.store import StaleRun, Store


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    yield opened
    opened.close()


@pytest.fixture
def jobs(store):
    return store.jobs


def items(*positions):
    return [{"position": p, "blob": f"blob{p}", "payload": {"key": f"k{p}"}} for p in positions]


def record(run, item):
    fields = {"run": run["run"], "item": item["item"], "key": item["payload"]["key"]}
    return {"device": "d", "kind": "op", "condition": {}, "measured_at": "2025-01-01T00:00:00Z", **fields}


def finish(jobs, run, digest="digest"):
    return jobs.finish(
        run["run"], digest, {i["item"]: record(run, i) for i in run["items"]}, {}, {"level": run["chunk"]}
    )


def test_a_job_from_queue_to_records(jobs):
    jobs.create("j", "d", {"blobs": ["sentinel"]}, [items(0, 2), items(1)])
    assert jobs.blobs("") == {"sentinel", "blob0", "blob1", "blob2"} == jobs.blobs_of("j")
    first = jobs.claim("d", "", 60)
    assert [i["position"] for i in first["items"]] == [0, 2]
    assert jobs.status("j")["running"] == 2
    finish(jobs, first)
    second = jobs.claim("d", "", 60)
    assert second["reference"] == {"level": 0}
    finish(jobs, second)
    assert jobs.claim("d", "", 60) is None
    status = jobs.status("j")
    assert (status["state"], status["done"], status["failed"]) == ("done", 3, 0)
    assert [jobs.records("j")[p]["key"] for p in range(3)] == ["k0", "k1", "k2"]
    assert jobs.blobs("") == set()


def test_work_goes_to_its_device_and_queue_only(jobs):
    jobs.create("j", "d", {}, [items(0)], queue="q")
    assert jobs.claim("other", "q", 60) is None
    assert jobs.claim("d", "", 60) is None
    assert jobs.claim("d", "q", 60)["job"] == "j"


def test_a_result_that_is_sent_twice_counts_once(jobs, store):
    jobs.create("j", "d", {}, [items(0)])
    run = jobs.claim("d", "", 60)
    assert finish(jobs, run) is True
    assert finish(jobs, run) is False
    with pytest.raises(StaleRun):
        finish(jobs, run, "another digest")
    assert len(store.measurements("d")) == 1


def test_a_lease_that_ends_gives_the_chunk_to_a_new_run(jobs, store):
    jobs.create("j", "d", {}, [items(0)])
    old = jobs.claim("d", "", -1)
    new = jobs.claim("d", "", 60)
    assert (old["attempt"], new["attempt"]) == (1, 2)
    for stale in (
        lambda: jobs.beat(old["run"], {}, 60),
        lambda: finish(jobs, old),
        lambda: jobs.beat("unknown", {}, 60),
    ):
        with pytest.raises(StaleRun):
            stale()
    jobs.beat(new["run"], {"phase": "rounds"}, 60)
    assert jobs.status("j")["progress"] == {"phase": "rounds"}
    finish(jobs, new)
    assert len(store.measurements("d")) == 1


def test_a_chunk_that_no_agent_survives_fails_in_the_end(jobs):
    jobs.create("j", "d", {}, [items(0)])
    for attempt in (1, 2, 3):
        assert jobs.claim("d", "", -1)["attempt"] == attempt
    assert jobs.claim("d", "", 60) is None
    status = jobs.status("j")
    assert (status["state"], status["failed"], status["errors"][0]["reason"]) == ("done", 1, "timeout")


def test_what_cannot_be_measured_is_not_tried_again(jobs):
    jobs.create("j", "d", {}, [items(0), items(1)])
    first = jobs.claim("d", "", 60)
    jobs.give_back(first["run"], {"reason": "worker-shutdown", "message": "bye"}, retry=True)
    again = jobs.claim("d", "", 60)
    assert again["chunk"] == 0
    jobs.give_back(again["run"], {"reason": "unsupported", "message": "no such op"}, retry=False)
    finish(jobs, jobs.claim("d", "", 60))
    status = jobs.status("j")
    assert (status["state"], status["done"], status["failed"]) == ("done", 1, 1)
    assert status["errors"] == [{"position": 0, "key": "k0", "reason": "unsupported", "message": "no such op"}]


def test_a_cancelled_job_takes_no_results(jobs):
    jobs.create("j", "d", {}, [items(0), items(1)])
    run = jobs.claim("d", "", 60)
    jobs.cancel("j")
    with pytest.raises(StaleRun):
        finish(jobs, run)
    assert jobs.claim("d", "", 60) is None
    assert jobs.status("j")["state"] == "cancelled"


def test_the_jobs_of_a_queue_that_nobody_serves_end(jobs):
    for job, queue in (("a", "gone"), ("b", "gone"), ("c", "other")):
        jobs.create(job, "d", {}, [items(0)], queue)
    run = jobs.claim("d", "gone", 60)
    jobs.cancel_queue("gone")
    assert [jobs.status(job)["state"] for job in "abc"] == ["cancelled", "cancelled", "active"]
    with pytest.raises(StaleRun):
        finish(jobs, run)


def test_agents_that_claim_at_once_get_different_chunks(jobs):
    jobs.create("j", "d", {}, [items(i) for i in range(8)])
    got = []

    def claim():
        for _ in range(2):
            got.append(jobs.claim("d", "", 60)["chunk"])

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(8))


def test_unknown_job(jobs):
    assert jobs.status("nope") is None
    jobs.cancel("nope")
