import copy
import gc
import hashlib
import http.client
import json
import math
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest
import requests
from sqlalchemy import text

from ofa_deploy.fleet import Protocol
from ofa_deploy.fleet.bodies import LARGE, read_body
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.store import Store

TOKEN = "a-token"
MODEL = b"a model"
SHA = hashlib.sha256(MODEL).hexdigest()
RUNTIME = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "batch": 1, "threads": 1}


class Api:
    """The API as a host, an agent or an attacker sees it: raw requests. What agents ask, it asks as its device."""

    def __init__(self, url, store, blobs):
        self.url, self.store, self.blobs = url, store, blobs
        self.device = uuid4().hex
        self.session = requests.Session()
        self.session.headers.update({"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
        self.token = enrol(self, self.device)

    def __call__(self, method, path, body=None, token=None, **more):
        data = None if body is None else json.dumps(body)  # lets NaN through, as an attacker would
        as_device = path == "/api/claim" or path.startswith("/api/runs/")
        token = token or (getattr(self, "token", None) if as_device else TOKEN)
        headers = {"Authorization": f"Bearer {token}"}
        return self.session.request(method, self.url + path, data=data, headers=headers, timeout=30, **more)

    def start(self, items=2, queue="", **asked):
        """A job with one claimed run."""
        assert self.session.put(f"{self.url}/api/blobs/{SHA}", data=MODEL, timeout=30).status_code == 204
        body = {**job(self.device, items, **asked), "queue": queue}
        assert self("POST", "/api/jobs", body).status_code == 201
        return body["id"], self("POST", "/api/claim", {"facts": {}, "queue": queue}).json()

    def stored(self):
        """What is stored of this test's device."""
        return self.store.measurements(self.device)

    def files(self):
        """Model files on the server."""
        return list(self.blobs.iterdir())


def enrol(api, name, queue=""):
    """Let a device in as an agent does. Returns its token."""
    profile = {"name": "local", "description": "", "runtime": "onnxruntime"}
    code = api("POST", "/api/devices", {"name": name, "profile": profile, "queue": queue}).json()["code"]
    return api("POST", "/api/enroll", {"code": code, "secret": "s" * 11 + uuid4().hex, "facts": {}}).json()["token"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    store = Store(f"sqlite:///{folder / 'ofa.db'}")
    running = LocalServer(create_app(store, TOKEN, folder / "blobs"))
    yield running.url, store, folder / "blobs"
    running.close()
    store.close()


@pytest.fixture
def api(server):
    """The API of one server for all tests; every test is another device's."""
    url, store, blobs = server
    for left in blobs.iterdir():
        left.unlink()
    opened = Api(url, store, blobs)
    yield opened
    opened.session.close()


def job(device, items=2, runtime=RUNTIME["runtime"], settings=()):
    item = {"kind": "op", "ops": ["k"], "specs": [], "arch": None, "blob": SHA}
    return {
        "id": uuid4().hex,
        "device": device,
        "runtime": {**RUNTIME, "runtime": runtime},
        "settings": Protocol(**{"rounds_min": 3, "timings": 3, **dict(settings)}).model_dump(),
        "sentinels": [SHA],
        "items": [{**item, "key": f"k{i}"} for i in range(items)],
    }


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def result(run, ms=1.0, sentinel_ms=1.0):
    return {
        "condition": {**{key: run["runtime"][key] for key in RUNTIME}, "runtime_version": "1.0", "simulated": False},
        "facts": {"cpu": "x"},
        "settings": dict(run["settings"]),
        "started_at": now(),
        "finished_at": now(),
        "stopped": "settled",
        "sentinel": {"blob": SHA, "burst": 1, "visits": [[[sentinel_ms, sentinel_ms]] * 3] * 3},
        "items": [{"item": i["item"], "burst": 1, "timings": [[ms, ms]] * 3} for i in run["items"]],
    }


def test_a_job_by_hand(api):
    number, run = api.start()
    path = f"/api/runs/{run['run']}"
    assert api("GET", f"/api/blobs/{SHA}").content == MODEL
    assert api("POST", path + "/progress", {"phase": "rounds", "round": 3}).status_code == 204
    assert api("GET", f"/api/jobs/{number}").json()["progress"] == {"phase": "rounds", "round": 3}
    assert api("POST", path + "/result", result(run)).json() == {"new": True}
    assert api("GET", f"/api/jobs/{number}").json()["state"] == "done"
    assert [r["key"] for r in api("GET", f"/api/jobs/{number}/records").json()] == ["k0", "k1"]
    assert api.device in {device["name"] for device in api("GET", "/api/devices").json()}
    assert api.files() == []
    assert len(api.stored()) == 2


def test_a_replay_counts_once_and_another_result_for_the_run_is_refused(api):
    _, run = api.start()
    path = f"/api/runs/{run['run']}/result"
    assert [api("POST", path, result(run)).status_code for _ in range(2)] == [200, 200]
    assert api("POST", path, result(run, ms=2.0)).status_code == 409
    assert [r["p50"] for r in api.stored()] == [1.0, 1.0]


def test_the_same_job_sent_twice_is_one_job(api):
    api.session.put(f"{api.url}/api/blobs/{SHA}", data=MODEL, timeout=30)
    body = job(api.device)
    assert [api("POST", "/api/jobs", body).status_code for _ in range(2)] == [201, 201]
    assert api("GET", f"/api/jobs/{body['id']}").json()["total"] == 2


def spoil(path, value):
    def change(body):
        *parents, last = path
        inner = body
        for part in parents:
            inner = inner[part]
        if value is KeyError:
            del inner[last]
        else:
            inner[last] = value

    return change


def deep(levels):
    return [deep(levels - 1)] if levels else []


TIMING = ("items", 0, "timings", 1, 0)
HOSTILE = {
    "nan": spoil(TIMING, math.nan),
    "infinite": spoil(TIMING, math.inf),
    "negative": spoil(TIMING, -1.0),
    "zero": spoil(TIMING, 0.0),
    "1e12": spoil(TIMING, 1e12),
    "below a nanosecond": spoil(TIMING, 1e-9),
    "a nanosecond a call": spoil(("items", 0, "timings"), [[1e-6, 1e-6]] * 3),
    "text": spoil(TIMING, "1.0"),
    "a truth": spoil(TIMING, True),
    "1e6": spoil(TIMING, 1e6),
    "negative infinity": spoil(TIMING, -math.inf),
    "a number of 400 digits": spoil(TIMING, 10**400),
    "microseconds for milliseconds": spoil(("items", 0, "timings"), [[3000.0, 3000.0]] * 3),
    "microseconds of the sentinel": spoil(("sentinel", "visits", 0), [[9000.0, 9000.0]] * 3),
    "more calls than it had time for": spoil(("items", 1, "burst"), 100_000),
    "null": spoil(TIMING, None),
    "a sentinel of zero": spoil(("sentinel", "visits", 2, 1, 1), 0),
    "a burst of nothing": spoil(("items", 0, "burst"), 0),
    "sentinel nan": spoil(("sentinel", "visits", 0, 0, 0), math.nan),
    "another sentinel": spoil(("sentinel", "blob"), "0" * 64),
    "no rounds": spoil(("items", 0, "timings"), []),
    "a round less": spoil(("items", 0, "timings"), [[1.0, 1.0]] * 2),
    "an empty round": spoil(("items", 0, "timings", 0), []),
    "an item never asked": spoil(("items", 0, "item"), "somebody.else"),
    "an item twice": lambda body: body["items"].append(copy.deepcopy(body["items"][0])),
    "an item missing": lambda body: body["items"].pop(),
    "no timings and no error": spoil(("items", 0, "timings"), KeyError),
    "another provider": spoil(("condition", "provider"), "CUDAExecutionProvider"),
    "another thread count": spoil(("condition", "threads"), 8),
    "other settings": spoil(("settings", "rounds_min"), 4),
    "facts with nan": spoil(("facts", "x"), math.nan),
    "facts that are no text": spoil(("facts", "x"), "\ud800"),
    "simulated, which was not asked for": spoil(("condition", "simulated"), True),
    "an integer of 400 digits": spoil(("facts", "temperature_c"), 10**400),
    "an integer of 65 bits": spoil(("facts", "x"), 2**64),
    "facts that are large": spoil(("facts",), {str(i): "x" * 1000 for i in range(65)}),
    "a long text": spoil(("items", 0, "details"), {"x": "x" * 65_537}),
    "facts that are deep": spoil(("facts", "x"), deep(32)),
    "details that are large": spoil(("items", 0, "details"), {"layers": ["x" * 100] * 10_500}),
    "fewer rounds than all": spoil(("stopped",), "rounds"),
    "the cap before its time": spoil(("stopped",), "cap"),
    "a ragged item": spoil(("items", 0, "timings", 1), [1.0, 1.0, 1.0]),
    "a ragged sentinel": spoil(("sentinel", "visits", 1, 2), [1.0, 1.0, 1.0]),
    "more bursts than the settings allow": spoil(("items", 0, "timings"), [[1.0] * 4] * 3),
    "unknown key": spoil(("p50",), 0.001),
    "no condition": spoil(("condition",), KeyError),
    "a time that is none": spoil(("finished_at",), "yesterday"),
    "a day that is none": spoil(("finished_at",), "2025-02-30T00:00:00Z"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_result_that_cannot_be_is_refused_and_nothing_of_it_is_stored(api, change):
    number, run = api.start()
    body = result(run)
    change(body)
    answer = api("POST", f"/api/runs/{run['run']}/result", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    assert len(answer.text) < 1200
    assert api.stored() == []
    assert api("GET", f"/api/jobs/{number}").json()["state"] == "active"
    assert api("POST", f"/api/runs/{run['run']}/result", result(run)).status_code == 200


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "finite number"),
        (math.inf, "finite number"),
        (0.0, "greater than or equal to 0.0001"),
        (-1.0, "greater than or equal to 0.0001"),
        (1e12, "less than 1000000"),
        (4e5, "they are not in milliseconds"),
    ],
)
def test_a_refusal_says_which_item_and_why(api, value, why):
    _, run = api.start()
    body = result(run)
    body["items"][1]["timings"][2][1] = value
    detail = api("POST", f"/api/runs/{run['run']}/result", body).json()["detail"]
    assert run["items"][1]["item"] in detail
    assert run["items"][0]["item"] not in detail
    assert why in detail


def test_whole_numbers_are_timings_and_a_simulation_takes_no_time(api):
    _, run = api.start()
    body = result(run, ms=1)
    assert api("POST", f"/api/runs/{run['run']}/result", body).status_code == 200
    _, run = api.start(runtime="simulated")
    body = result(run, ms=60_000.0)
    body["condition"]["simulated"] = True
    assert api("POST", f"/api/runs/{run['run']}/result", body).status_code == 200


def test_three_rounds_of_twelve_are_refused_and_so_is_a_cap_before_its_time(api):
    number, run = api.start(settings={"rounds_min": 12})
    answer = api("POST", f"/api/runs/{run['run']}/result", result(run))
    assert "ended after 3 rounds as 'settled'; that takes 12" in answer.json()["detail"]
    answer = api("POST", f"/api/runs/{run['run']}/result", {**result(run), "stopped": "cap"})
    assert "that takes 90 s at least" in answer.json()["detail"]
    assert api.stored() == []
    assert api("GET", f"/api/jobs/{number}").json()["state"] == "active"


def test_a_simulated_device_that_says_it_is_real_is_stored_as_simulated(api):
    _, run = api.start(runtime="simulated")
    assert api("POST", f"/api/runs/{run['run']}/result", result(run)).status_code == 200
    assert {record["condition"]["simulated"] for record in api.stored()} == {True}
    assert {record["measured_at"] for record in api.stored()} == {"1970-01-01T00:00:00Z"}


@pytest.mark.parametrize("year", ["0001", "1970", "9999"])
def test_a_device_in_another_year_is_stored_with_the_servers_times(api, year):
    _, run = api.start()
    body = {**result(run), "started_at": f"{year}-01-01T00:00:00Z", "finished_at": f"{year}-01-01T00:00:00Z"}
    assert api("POST", f"/api/runs/{run['run']}/result", body).status_code == 200
    stored = api.stored()
    assert len(stored) == len(run["items"])
    for record in stored:
        for name in ("started_at", "measured_at"):
            assert abs((datetime.now(UTC) - datetime.fromisoformat(record[name])).total_seconds()) < 60


def test_what_a_device_says_of_itself_is_stored_once_for_all_records(api):
    _, run = api.start(items=100)
    body = result(run)
    body["facts"] = {str(i): "x" * 1000 for i in range(60)}
    assert api("POST", f"/api/runs/{run['run']}/result", body).status_code == 200
    assert [record["facts"] for record in api.stored()] == [body["facts"]] * 100
    with api.store._engine.connect() as connection:
        of_run = "SELECT sum(length(CAST(record AS TEXT))) FROM measurements WHERE run = :run"
        assert connection.execute(text(of_run), {"run": run["run"]}).scalar() < 200_000


@pytest.mark.parametrize("queue", ["", "mine"])
def test_a_token_is_good_for_its_own_queue_alone(api, queue):
    other = "mine" if not queue else ""
    api.token = enrol(api, api.device, queue)
    api.start(queue=queue)
    elsewhere = enrol(api, api.device, other)
    answer = api("POST", "/api/claim", {"facts": {}, "queue": queue}, elsewhere)
    assert answer.status_code == 403
    assert "this token is for" in answer.json()["detail"]
    _, run = api.start(queue=queue)
    path = f"/api/runs/{run['run']}"
    for what, body in (("progress", {"phase": "rounds"}), ("failure", {"reason": "failed", "message": ""})):
        assert api("POST", f"{path}/{what}", body, elsewhere).status_code == 403
    assert api("POST", f"{path}/result", result(run), elsewhere).status_code == 403
    assert api("POST", f"{path}/result", result(run)).status_code == 200


def test_an_agent_that_does_not_tell_its_power_mode_and_one_that_does(api):
    for told, kept in (({}, "unknown"), ({"power_mode": "performance"}, "performance")):
        _, run = api.start()
        body = result(run)
        body["condition"] |= told
        api("POST", f"/api/runs/{run['run']}/result", body)
        assert api.stored()[-1]["condition"]["power_mode"] == kept


def test_signs_of_life_are_answered_while_a_large_result_is_read(api, monkeypatch):
    _, run = api.start(items=300)
    _, other = api.start()
    reading, go_on, got = threading.Event(), threading.Event(), []

    def read(body, model):
        reading.set()
        assert go_on.wait(30)
        return read_body(body, model)

    monkeypatch.setattr("ofa_deploy.fleet.bodies.read_body", read)
    body = json.dumps({**result(run), "facts": {str(i): "x" * 1000 for i in range(50)}}).encode()
    assert len(body) > LARGE
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    url = f"{api.url}/api/runs/{run['run']}/result"
    sender = threading.Thread(target=lambda: got.append(requests.post(url, data=body, headers=headers, timeout=60)))
    sender.start()
    assert reading.wait(30)
    assert api("POST", f"/api/runs/{other['run']}/progress", {"phase": "rounds"}).status_code == 204
    assert not got
    assert not gc.isenabled()
    go_on.set()
    sender.join(30)
    assert got[0].json() == {"new": True}
    assert gc.isenabled()
    assert len(api.stored()) == 300


def test_a_large_result_for_anothers_run_is_not_even_read(api, monkeypatch):
    _, run = api.start(items=100)
    body = {**result(run), "facts": {str(i): "x" * 1000 for i in range(60)}}
    stranger = enrol(api, uuid4().hex)
    monkeypatch.setattr("ofa_deploy.fleet.bodies.read_body", lambda *_: pytest.fail("it was read"))
    assert api("POST", f"/api/runs/{run['run']}/result", body, stranger).status_code == 403
    assert api("POST", "/api/runs/unknown/result", body).status_code == 409
    monkeypatch.undo()
    assert api("POST", f"/api/runs/{run['run']}/result", body).status_code == 200


def test_a_large_result_is_refused_as_a_small_one_is(api):
    details = []
    for facts in ({}, {str(i): "x" * 1000 for i in range(60)}):
        _, run = api.start(items=100)
        body = {**result(run), "facts": facts}
        body["items"][1]["timings"][0][1] = -1.0
        assert (len(json.dumps(body)) > LARGE) == bool(facts)
        answer = api("POST", f"/api/runs/{run['run']}/result", body)
        assert answer.status_code == 422
        details.append(answer.json()["detail"].replace(run["items"][1]["item"], "ITEM"))
    expected = "body.items.1.timings.0.1 (item ITEM): Input should be greater than or equal to 0.0001"
    assert details == [expected, expected]


def test_signs_of_life_are_answered_while_a_model_is_written(api, monkeypatch):
    _, run = api.start()
    writing, go_on, got = threading.Event(), threading.Event(), []

    class Slow:
        def __init__(self):
            self.real = hashlib.sha256()

        def update(self, data):
            writing.set()
            assert go_on.wait(30)
            self.real.update(data)

        def hexdigest(self):
            return self.real.hexdigest()

    model = b"another model" * 200_000
    url, headers = f"{api.url}/api/blobs/{hashlib.sha256(model).hexdigest()}", {"Authorization": f"Bearer {TOKEN}"}
    monkeypatch.setattr("ofa_deploy.fleet.blobs.hashlib", SimpleNamespace(sha256=Slow))
    sender = threading.Thread(target=lambda: got.append(requests.put(url, data=model, headers=headers, timeout=60)))
    sender.start()
    assert writing.wait(30)
    assert api("POST", f"/api/runs/{run['run']}/progress", {"phase": "rounds"}).status_code == 204
    assert not got
    go_on.set()
    sender.join(30)
    assert got[0].status_code == 204
    assert requests.get(url, headers=headers, timeout=60).content == model


def test_results_for_runs_that_are_not_there(api):
    _, run = api.start()
    assert api("POST", "/api/runs/unknown/result", result(run)).status_code == 409
    assert api("POST", "/api/runs/unknown/progress", {"phase": "rounds"}).status_code == 409
    assert api.stored() == []


def test_a_cancelled_job_tells_its_agent(api):
    number, run = api.start()
    assert api("DELETE", f"/api/jobs/{number}").status_code == 204
    assert api("POST", f"/api/runs/{run['run']}/progress", {"phase": "rounds"}).status_code == 409
    assert api("POST", f"/api/runs/{run['run']}/result", result(run)).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        spoil(("device",), "../../etc"),
        spoil(("device",), ""),
        spoil(("id",), "short"),
        spoil(("items",), []),
        spoil(("items", 0, "blob"), "../ofa.db"),
        spoil(("runtime", "threads"), 0),
        spoil(("settings", "se"), math.nan),
        spoil(("settings", "unknown"), 1),
    ],
)
def test_jobs_that_make_no_sense(api, change):
    body = job(api.device)
    change(body)
    assert api("POST", "/api/jobs", body).status_code == 422


def test_a_job_whose_models_are_not_here(api):
    answer = api("POST", "/api/jobs", job(api.device))
    assert answer.status_code == 409
    assert SHA in answer.json()["detail"]


def test_a_model_that_is_not_what_its_name_says(api):
    for name in ("0" * 64, "x", "..%2Fofa.db", SHA.upper()):
        assert api.session.put(f"{api.url}/api/blobs/{name}", data=MODEL, timeout=30).status_code in (404, 422)
    assert api.files() == []
    assert api("GET", f"/api/blobs/{SHA}").status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"device": 1}'])
def test_bodies_that_are_not_what_is_expected(api, body):
    for path, token in (("/api/jobs", TOKEN), ("/api/claim", api.token), ("/api/runs/x/result", api.token)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = api.session.post(api.url + path, data=body, headers=headers, timeout=30)
        assert 400 <= answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text


def test_a_body_without_end_is_refused(api, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.guard.JSON_BYTES", 1000)
    for body in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):
        assert api.session.post(api.url + "/api/devices", data=body, timeout=30).status_code == 413


def test_unknown_jobs(api):
    assert api("GET", "/api/jobs/x").status_code == api("GET", "/api/jobs/x/records").status_code == 404


def test_a_claim_waits_for_work_and_a_client_that_is_gone_gets_none(api):
    assert api("POST", "/api/claim", {"facts": {}, "wait_s": 0.3}).status_code == 204
    gone = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=30)
    body = json.dumps({"facts": {"I am": "here"}, "wait_s": 20})
    gone.request(
        "POST", "/api/claim", body, {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    )
    while not api.store.device(api.device).facts:
        pass
    gone.close()
    _, run = api.start()
    assert run["attempt"] == 1
