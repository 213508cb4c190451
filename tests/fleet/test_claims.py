"""Agents that wait: woken at once by a job, and by other servers over the same database."""

import hashlib
import threading
import time
from uuid import uuid4

import pytest
import requests

from ofa_deploy.errors import DeviceUnavailable
from ofa_deploy.fleet import Client
from ofa_deploy.fleet.schemas import JobRequest
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.fleet.tokens import digest
from ofa_deploy.store import Store, utc_now

TOKEN, SECRET = "the-admins", "s" * 43
MODEL = b"a model"
SHA = hashlib.sha256(MODEL).hexdigest()
PROFILE = {"name": "local", "description": "", "runtime": "onnxruntime"}


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(request, tmp_path):
    """Two servers over one database and one folder of models."""
    url = f"sqlite:///{tmp_path / 'ofa.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("new_postgres_database")()
    stores = [Store(url), Store(url)]
    running = [LocalServer(create_app(store, TOKEN, tmp_path / "blobs", lease_s=5)) for store in stores]
    stores[0].access.register("phone", PROFILE, digest("code"), utc_now(60))
    stores[0].access.enrol(digest("code"), digest(SECRET), {"memory_mb": 4000})
    yield [server.url for server in running], stores[0]
    for server in running:
        server.close()
    for store in stores:
        store.close()


def let_in(store, queue):
    """The secret of an agent that works for one queue of the device."""
    secret = queue[0] * 43
    store.access.register("phone", PROFILE, digest(queue), utc_now(60), queue)
    assert store.access.enrol(digest(queue), digest(secret), {}) == "phone"
    return secret


def ask(url, path, body, status=200, secret=SECRET):
    headers = {"Authorization": f"Bearer phone.{secret}"}
    answer = requests.post(url + path, json=body, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def job(items=1, **more):
    item = {"kind": "op", "ops": ["k"], "specs": [{"h": 1}], "counts": [{"macs": 3}], "arch": None, "blob": SHA}
    return {
        "id": uuid4().hex,
        "device": "phone",
        "runtime": {"runtime": "x", "provider": "x", "precision": "fp32", "batch": 1, "threads": 1},
        "settings": {},
        "sentinels": [SHA],
        "items": [{**item, "key": f"k{i}"} for i in range(items)],
        **more,
    }


def submit(url, **more):
    client = Client(url, TOKEN)
    body = job(**more)
    client.submit(JobRequest.model_validate(body), {SHA: MODEL})
    client.close()
    return body["id"]


@pytest.mark.parametrize("other", [0, 1])
def test_an_agent_that_waits_is_woken_by_a_job(servers, other):
    urls, _ = servers
    got = []
    wait = {"facts": {}, "wait_s": 30}
    agent = threading.Thread(target=lambda: got.append(ask(urls[0], "/api/claim", wait)))
    agent.start()
    time.sleep(0.3)
    submit(urls[other])
    agent.join(25)
    assert not agent.is_alive(), "it waited for its time to end"
    (run,) = got
    assert (run["device"], run["attempt"], run["lease_s"], run["run_s"]) == ("phone", 1, 5.0, 3600.0)
    told = {"key": "k0", "kind": "op", "specs": [{"h": 1}], "counts": [{"macs": 3}], "blob": SHA}
    assert [{**told, "item": run["items"][0]["item"]}] == run["items"]
    assert run["sentinels"] == [{**told, "item": "sentinel"}]
    assert run["runtime"]["simulation"] is None


def test_a_command_that_waits_hears_at_once_that_its_job_has_ended(servers):
    urls, _ = servers
    asked, got, client = submit(urls[0]), [], Client(urls[0], TOKEN)
    assert client.status(asked).state == "active", "without a wait it is answered at once"
    command = threading.Thread(target=lambda: got.append(client.status(asked, wait_s=20).state))
    command.start()
    time.sleep(0.3)
    run = ask(urls[0], "/api/claim", {"facts": {}})["run"]
    ask(urls[0], f"/api/runs/{run}/failure", {"reason": "worker-shutdown", "message": "bye"}, 204)
    time.sleep(0.3)
    assert got == [], "it is given to another agent"
    other = Client(urls[0], TOKEN)
    other.cancel(asked)
    command.join(15)
    assert got == ["cancelled"]
    assert client.status(asked, wait_s=20).state == "cancelled"
    client.close()
    other.close()


def test_a_chunk_that_is_handed_back_wakes_the_next(servers):
    urls, _ = servers
    submit(urls[0])
    first = ask(urls[0], "/api/claim", {"facts": {}})
    ask(urls[1], f"/api/runs/{first['run']}/failure", {"reason": "worker-shutdown", "message": "bye"}, 204)
    assert ask(urls[0], "/api/claim", {"facts": {}, "wait_s": 20})["attempt"] == 2


def test_an_agent_goes_on_with_the_run_that_it_has(servers):
    urls, _ = servers
    submit(urls[0])
    first = ask(urls[0], "/api/claim", {"facts": {}})
    assert ask(urls[1], "/api/claim", {"facts": {}, "run": first["run"]}) == first
    assert ask(urls[1], "/api/claim", {"facts": {}}, 204) is None


def test_work_of_a_commands_queue_is_for_its_agent(servers):
    urls, _ = servers
    submit(urls[0], queue="mine")
    assert ask(urls[0], "/api/claim", {"facts": {}}, 204) is None
    ask(urls[0], "/api/claim", {"facts": {}, "queue": "mine"}, 403)
    secret = let_in(servers[1], "mine")
    assert ask(urls[0], "/api/claim", {"facts": {}, "queue": "mine"}, secret=secret)["attempt"] == 1


def test_waiting_agents_go_home_when_the_server_ends(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    server = LocalServer(create_app(store, TOKEN, tmp_path / "blobs"))
    store.access.register("phone", PROFILE, digest("code"), utc_now(60))
    store.access.enrol(digest("code"), digest(SECRET), {})
    got = []
    wait = {"facts": {}, "wait_s": 60}
    agent = threading.Thread(target=lambda: got.append(ask(server.url, "/api/claim", wait, 204)))
    agent.start()
    time.sleep(0.5)
    server.close()
    agent.join(20)
    assert got == [None]
    store.close()


def test_a_device_that_is_not_there_is_said_at_once_and_who_and_since_when(servers, monkeypatch):
    urls, store = servers
    with pytest.raises(DeviceUnavailable, match="'nobody' is not registered; let it in with: ofa-deploy device reg"):
        submit(urls[0], device="nobody")
    store.access.register("new", PROFILE, digest("another"), utc_now(60))
    with pytest.raises(DeviceUnavailable, match=r"'new' was registered at 20.*no agent ever reported"):
        submit(urls[0], device="new")
    seen = store.device("phone").seen_at
    monkeypatch.setattr("ofa_deploy.fleet.service.SEEN_S", 0.0)
    with pytest.raises(DeviceUnavailable, match=f"last heard of at {seen}, 0 s ago; start its agent there again"):
        submit(urls[0])
    store.access.revoke("phone")
    with pytest.raises(DeviceUnavailable, match="'phone' was revoked at 20"):
        submit(urls[0])
    assert store.jobs.waiting() == set()


def test_a_job_that_nobody_takes_fails_for_who_waits_for_it(servers):
    urls, _ = servers
    number = submit(urls[0], queue_s=0.2)
    client = Client(urls[1], TOKEN)
    time.sleep(0.3)
    status = client.status(number)
    client.close()
    assert (status.state, status.failed, status.errors[0].reason) == ("done", 1, "timeout")


def test_work_that_comes_while_an_agent_asks_is_not_missed(servers, monkeypatch):
    urls, store = servers
    looked, polled = threading.Event(), threading.Event()
    look = store.runs.claim

    def claim(*arguments):
        found = look(*arguments)
        if not looked.is_set():
            looked.set()
            polled.wait(10)  # the job comes after the look, and before the agent waits
        return found

    monkeypatch.setattr(store.runs, "claim", claim)
    monkeypatch.setattr("ofa_deploy.fleet.bells.POLL_S", 60.0)
    time.sleep(1.2)  # the poll that is under way
    got = []
    agent = threading.Thread(target=lambda: got.append(ask(urls[0], "/api/claim", {"facts": {}, "wait_s": 5})))
    agent.start()
    assert looked.wait(10)
    submit(urls[0])
    polled.set()
    agent.join(20)
    assert got[0]["attempt"] == 1


def test_jobs_of_a_command_that_is_gone_end(servers, monkeypatch):
    urls, store = servers
    monkeypatch.setattr("ofa_deploy.fleet.service.SILENT_S", 3600.0)
    number, kept = submit(urls[0], queue="killed"), submit(urls[0])
    running = submit(urls[0], queue="alive")
    ask(urls[0], "/api/claim", {"facts": {}, "queue": "alive"}, secret=let_in(store, "alive"))
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET created_at = '2020-01-01T00:00:00.000Z'")
    client = Client(urls[1], TOKEN)
    assert [client.status(job).state for job in (number, kept, running)] == ["cancelled", "active", "active"]
    client.close()


def test_a_sign_of_life_shows_the_device_as_there(servers):
    urls, store = servers
    submit(urls[0])
    run = ask(urls[0], "/api/claim", {"facts": {"cpu": "x"}})
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE devices SET seen_at = '2020-01-01T00:00:00.000Z'")
    ask(urls[0], f"/api/runs/{run['run']}/progress", {"phase": "rounds", "round": 1}, 204)
    assert store.device("phone").seen_at > "2020-01-02"
    assert store.device("phone").facts == {"cpu": "x"}
