"""Every route of the server with every kind of token."""

import hashlib
import json
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from device_agents.__main__ import parse
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.tokens import digest, new_code
from ofa_deploy.store import NewItem, Store, utc_now

ADMIN = "the-admins-token"
SHA = hashlib.sha256(b"").hexdigest()
SECRETS = {name: name[0] * 43 for name in ("phone", "other", "gone")}

# what an admin, the run's device and another device get; whoever has no good token gets 401, but for public routes
ROUTES = {
    ("POST", "/api/jobs"): (422, 403, 403),
    ("GET", "/api/jobs/{job}"): (200, 403, 403),
    ("GET", "/api/jobs/{job}/records"): (200, 403, 403),
    ("DELETE", "/api/jobs/{job}"): (204, 403, 403),
    ("DELETE", "/api/queues/{queue}"): (204, 403, 403),
    ("POST", "/api/claim"): (403, 200, 204),
    ("POST", "/api/runs/{run}/progress"): (403, 204, 403),
    ("POST", "/api/runs/{run}/result"): (403, 422, 422),
    ("POST", "/api/runs/{run}/failure"): (403, 204, 403),
    ("PUT", "/api/blobs/{sha256}"): (204, 403, 403),
    ("GET", "/api/blobs/{sha256}"): (404, 404, 404),
    ("GET", "/api/devices"): (200, 403, 403),
    ("POST", "/api/devices"): (422, 403, 403),
    ("GET", "/api/devices/{name}"): (200, 403, 403),
    ("POST", "/api/devices/{name}/revoke"): (204, 403, 403),
    ("GET", "/api/devices/{name}/measurements"): (200, 403, 403),
    ("GET", "/api/devices/{name}/table"): (404, 403, 403),
    ("GET", "/api/overview"): (200, 403, 403),
    ("GET", "/api/reports"): (200, 403, 403),
    ("GET", "/api/reports/{kind}/{path:path}"): (404, 403, 403),
    ("GET", "/metrics"): (200, 403, 403),
}
PUBLIC = {
    ("POST", "/api/enroll"): 422,
    ("GET", "/"): 200,
    ("GET", "/agent"): 200,
    ("GET", "/agent/ort/{file}"): 404,
    ("GET", "/agent/{file}"): 404,
    ("GET", "/dashboard/{file}"): 404,
    ("GET", "/docs"): 200,
    ("GET", "/healthz"): 200,
    ("GET", "/openapi.json"): 200,
}
BODIES = {
    "/api/claim": {"facts": {}},
    "/api/runs/{run}/progress": {"phase": "rounds"},
    "/api/runs/{run}/failure": {"reason": "failed", "message": ""},
}


@pytest.fixture
def served(tmp_path):
    """A server with three devices, of which one was revoked, and a run of the first one."""
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    for name, secret in SECRETS.items():
        store.access.register(name, {}, digest(name), utc_now(60))
        assert store.access.enrol(digest(name), digest(secret), {}) == name
    store.access.revoke("gone")
    payload = {"key": "k", "kind": "op", "specs": [], "counts": []}
    items = [[NewItem(i, SHA, payload)] for i in range(2)]
    job = uuid4().hex
    store.jobs.create(job, "phone", {"runtime": {}, "settings": {}, "sentinels": []}, items)
    run = store.runs.claim("phone", "", 60).run
    values = {
        "job": job,
        "run": run,
        "sha256": SHA,
        "name": "phone",
        "queue": "q",
        "kind": "audits",
        "path": "a",
        "file": "none",
    }
    with TestClient(create_app(store, ADMIN, tmp_path / "blobs")) as client:
        yield client, values
    store.close()


def ask(served, method, path, token):
    client, values = served
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode("latin-1")}
    body = BODIES.get(path)
    return client.request(
        method, path.replace(":path}", "}").format(**values), headers=headers, **({"json": body} if body else {})
    )


BAD = {
    "none": None,
    "empty": "",
    "garbage": "garbage",
    "not ascii": "\xff.\xff",
    "almost the admin's": ADMIN + "x",
    "a wrong secret": f"phone.{'x' * 43}",
    "another's secret": f"phone.{SECRETS['other']}",
    "no secret": "phone.",
    "no name": f".{SECRETS['phone']}",
    "nobody's": f"nobody.{'x' * 43}",
    "a hash": f"phone.{digest(SECRETS['phone'])}",
    "revoked": f"gone.{SECRETS['gone']}",
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
def test_no_route_without_a_good_token(served, token):
    for method, path in ROUTES:
        assert ask(served, method, path, token).status_code == 401, (method, path)
    for (method, path), status in PUBLIC.items():
        assert ask(served, method, path, token).status_code == status, (method, path)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_and_role(served, method, path):
    admin, own, other = ROUTES[method, path]
    tokens = {f"other.{SECRETS['other']}": other, f"phone.{SECRETS['phone']}": own, ADMIN: admin}
    for token, status in tokens.items():
        answer = ask(served, method, path, token)
        assert answer.status_code == status, (token, answer.text)


@pytest.mark.parametrize("token", [ADMIN, f"phone.{SECRETS['phone']}", "garbage"])
def test_no_answer_of_the_api_is_kept_or_guessed_at(served, token):
    for method, path in {**ROUTES, **PUBLIC}:
        headers = ask(served, method, path, token).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] == ("no-store" if path.startswith("/api/") else headers["cache-control"])
    client, _ = served
    answer = enroll(client, register(client))
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_the_table_has_every_route(served):
    client, _ = served
    listed = {(method, route.path) for route in client.app.routes for method in route.methods - {"HEAD"}}
    assert listed == {*ROUTES, *PUBLIC}, "a route is in the table above, with what each token gets"


def test_whatever_is_not_there_is_not_told_without_a_token(served):
    for path in ("/nothing", "/api/", "/api/claim/", "/docsx", "/api/enroll/x", "/docs/oauth2-redirect", "/redoc"):
        assert ask(served, "GET", path, None).status_code in (401, 404)
    assert ask(served, "GET", "/nothing", ADMIN).status_code == 404
    assert ask(served, "GET", "/nothing", f"phone.{SECRETS['phone']}").status_code == 403


PROFILE = {"name": "local", "description": "", "runtime": "onnxruntime"}


def register(client, name="new", **more):
    answer = client.post("/api/devices", json={"name": name, "profile": PROFILE, **more}, headers=admin())
    assert answer.status_code == 201, answer.text
    return answer.json()["code"]


def admin():
    return {"Authorization": f"Bearer {ADMIN}"}


def enroll(client, code, secret="s" * 43):
    return client.post("/api/enroll", json={"code": code, "secret": secret, "facts": {"cpu": "x"}})


def claim(client, token, queue=""):
    body = {"facts": {}, "queue": queue}
    return client.post("/api/claim", json=body, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_code_lets_one_agent_in_and_a_lost_answer_costs_nothing(served):
    client, _ = served
    code = register(client)
    first = enroll(client, code)
    assert first.json() == {"device": "new", "token": "new." + "s" * 43}
    assert enroll(client, code).json() == first.json()
    assert enroll(client, code, "t" * 43).status_code == 401
    assert enroll(client, "x" * 22).status_code == 401
    assert claim(client, first.json()["token"]) == 204
    again = enroll(client, register(client), "t" * 43).json()["token"]
    assert claim(client, again) == claim(client, first.json()["token"]) == 204


def test_a_secret_is_one_devices(served):
    client, _ = served
    assert enroll(client, register(client, "a")).status_code == 200
    assert enroll(client, register(client, "b")).status_code == 401


def test_a_revoked_device_is_out_until_it_is_registered_again(served):
    client, _ = served
    unused, token = register(client), enroll(client, register(client)).json()["token"]
    assert client.post("/api/devices/new/revoke", headers=admin()).status_code == 204
    assert claim(client, token) == 401
    assert enroll(client, unused, "t" * 43).status_code == 401
    told = client.get("/api/devices/new", headers=admin()).json()
    assert told["revoked_at"]
    assert not told["online"]
    assert "s" * 43 not in str(told)
    assert digest("s" * 43) not in str(told)
    token = enroll(client, register(client), "t" * 43).json()["token"]
    assert claim(client, token) == 204
    assert client.get("/api/devices/new", headers=admin()).json()["online"]


def test_a_code_can_follow_an_option():
    codes = {new_code() for _ in range(500)}
    assert len(codes) == 500
    assert [code for code in codes if parse(["--code", code], "ofa-agent").code != code] == []


def test_codes_expire(served, monkeypatch):
    client, _ = served
    monkeypatch.setattr("ofa_deploy.fleet.routes_devices.CODE_S", -1.0)
    assert enroll(client, register(client)).status_code == 401


def test_the_tokens_of_a_command_end_with_its_queue(served):
    client, _ = served
    token = enroll(client, register(client, queue="mine")).json()["token"]
    assert claim(client, token, "mine") == 204
    assert client.delete("/api/queues/mine", headers=admin()).status_code == 204
    assert claim(client, token, "mine") == 401


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x.yaml", "x" * 101, "\x00", "\ud800", "-x", 3, None])
def test_names_of_devices(served, name):
    client, _ = served
    body = {"name": name, "profile": PROFILE}
    assert client.post("/api/devices", content=json.dumps(body), headers=admin()).status_code == 422


def test_a_method_that_is_not_there_is_told_those_that_are(served):
    client, _ = served
    answer = client.patch("/api/devices", headers=admin())
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
