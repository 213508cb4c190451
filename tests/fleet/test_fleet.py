import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import DeviceUnavailable, OfaDeployError, UsageError
from ofa_deploy.fleet import Client, Fleet, Protocol
from ofa_deploy.fleet.local import PHASES, _progress, server_elsewhere
from ofa_deploy.fleet.presence import announced, running
from ofa_deploy.fleet.schemas import JobStatus
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.fleet.tokens import admin_token
from ofa_deploy.store import NewItem, Workspace


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_measures_through_a_real_server_and_a_real_agent(fleet, workspace, target, make_items, quick_protocol):
    items, seen = make_items(3), []
    records = fleet.measure(target, items, quick_protocol, seen.append)
    assert [record.key for record in records] == [item.key for item in items]
    assert [record.to_json() for record in records] == workspace.store.measurements("local")
    for record, item in zip(records, items, strict=True):
        assert 0 < record.best <= record.p50 <= record.p99 < 1000
        assert len(record.rounds) + len(record.excluded) == len(record.timings) + len(record.excluded) == 3
        assert record.n == sum(map(len, record.timings))
        assert record.specs == [op.to_json() for op in item.network.ops]
        assert record.settings == quick_protocol.model_dump()
        assert record.condition["provider"] == "CPUExecutionProvider"
        assert len(record.facts["cores_used"]) == 1
    assert seen[-1]["done"] == seen[-1]["total"] == 3
    assert workspace.store.device("local").facts["python"]
    assert list((workspace.root / "blobs").glob("*/*")) == []


def test_a_server_inside_finds_the_models_without_an_upload(fleet, target, make_items, quick_protocol, monkeypatch):
    """Beside busy loops an upload within one process took minutes."""
    sent, request = [], Client._request
    monkeypatch.setattr(
        Client,
        "_request",
        lambda self, method, *rest, **more: sent.append(method) or request(self, method, *rest, **more),
    )
    assert len(fleet.measure(target, make_items(2), quick_protocol)) == 2
    assert "POST" in sent
    assert "PUT" not in sent


def test_a_second_measurement_uses_the_same_agent_and_adds_rows(fleet, workspace, target, make_items, quick_protocol):
    for _ in range(2):
        fleet.measure(target, make_items(2), quick_protocol)
    assert len(workspace.store.measurements("local")) == 4
    assert fleet.measure(target, [], quick_protocol) == []


def test_one_broken_model_is_named_and_the_others_are_stored(fleet, workspace, target, make_items, quick_protocol):
    good, bad = make_items(2)
    with pytest.raises(OfaDeployError, match="1 of 2 items could not be measured") as error:
        fleet.measure(target, [good, replace(bad, model=b"no model")], quick_protocol)
    assert bad.key in str(error.value)
    assert "\n" not in str(error.value)
    assert [record["key"] for record in workspace.store.measurements("local")] == [good.key]


def test_a_provider_that_is_not_there_is_an_error_never_another_provider(
    fleet, workspace, target, make_items, quick_protocol
):
    wrong = target.model_copy(update={"provider": "CUDAExecutionProvider"})
    with pytest.raises(OfaDeployError, match="has no CUDAExecutionProvider"):
        fleet.measure(wrong, make_items(1), quick_protocol)
    assert workspace.store.measurements("local") == []


def test_progress_is_told_in_words(fleet, target, make_items, quick_protocol):
    told = []
    fleet.measure(target, make_items(2), quick_protocol, told.append)
    rounds = [progress for progress in told if progress["phase"] == "measuring"]
    assert {progress["phase"] for progress in told} <= set(PHASES.values())
    assert all(progress["round"] >= 1 and 0 <= progress["steady"] <= 2 for progress in rounds)
    assert told[-1]["done"] == told[-1]["total"] == 2
    now = {"phase": "rounds", "round": 3, "settled": 2, "rounds_min": 12}
    counts = {"running": 4, "done": 1, "failed": 0, "total": 8}
    status = JobStatus(id="j", device="d", state="active", errors=(), progress=now, lost=None, **counts)
    assert _progress(status) == {"done": 2, "total": 8, "phase": "measuring", "round": 3, "steady": 2}


def test_an_agent_that_dies_is_reported_with_its_last_words(fleet, target, make_items):
    def kill(progress):
        if progress.get("round"):
            os.kill(fleet._agent.pid, signal.SIGKILL)

    with pytest.raises(DeviceUnavailable, match="'local' ended with code -9"):
        fleet.measure(target, make_items(2), Protocol(rounds_max=10000, se=1e-9), kill)


def test_after_a_dead_agent_the_next_measurement_works(fleet, target, make_items, quick_protocol):
    fleet.measure(target, make_items(1), quick_protocol)
    os.kill(fleet._agent.pid, signal.SIGKILL)
    fleet._agent._process.wait()
    assert len(fleet.measure(target, make_items(1), quick_protocol)) == 1


def test_ctrl_c_stops_the_agent_and_the_job(fleet, workspace, target, make_items, quick_protocol):
    pids = []

    def interrupt(progress):
        if progress.get("round"):
            pids.append(fleet._agent.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fleet.measure(target, make_items(2), Protocol(rounds_max=10000, se=1e-9), interrupt)
    assert not alive(pids[0])
    assert workspace.store.measurements("local") == []
    assert len(fleet.measure(target, make_items(1), quick_protocol)) == 1


def test_a_device_without_an_agent_is_said_at_once(fleet, target, make_items):
    with pytest.raises(DeviceUnavailable, match="'phone'"):
        fleet.measure(target.model_copy(update={"name": "phone", "loopback": False}), make_items(1))


def test_jobs_of_a_command_that_was_killed_are_not_measured_for_the_next_one(
    fleet, workspace, target, make_items, quick_protocol
):
    workspace.store.jobs.create("old", "local", {}, [[NewItem(0, "x", {"key": "x"})]], "old")
    assert len(fleet.measure(target, make_items(1), quick_protocol)) == 1
    assert workspace.store.jobs.status("old").state == "active"


def test_the_next_command_ends_the_jobs_of_one_that_was_killed(workspace):
    code = """
        import pathlib, sys, time
        from ofa_deploy.fleet import Fleet
        from ofa_deploy.store import NewItem, Workspace
        workspace = Workspace.open(pathlib.Path(sys.argv[1]))
        Fleet.open(workspace)
        (queue,) = (workspace.root / "blobs").glob("*/")
        (queue / "model").touch()
        item = NewItem(0, "model", {"key": "x"})
        workspace.store.jobs.create("old", "local", {}, [[item]], queue.name)
        print(queue, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(workspace.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        models = Path(process.stdout.readline().strip())
        Fleet.open(workspace).close()
        assert workspace.store.jobs.status("old").state == "active", "its command lives"
        assert (models / "model").exists()
        process.kill()
    with Fleet.open(workspace):
        assert workspace.store.jobs.status("old").state == "cancelled"
        assert not models.exists()
    assert list((workspace.root / "blobs").iterdir()) == []


def test_the_agent_ends_with_a_command_that_is_killed(tmp_path, make_items):
    code = """
        import pathlib, sys, time
        from ofa_deploy.fleet import Fleet, resolve_target
        from ofa_deploy.store import Workspace
        fleet = Fleet.open(Workspace.open(pathlib.Path(sys.argv[1])))
        fleet._start_agent(resolve_target("local"))
        print(fleet._agent.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    wait_for(lambda: not alive(pid))


def test_local_is_measured_in_this_workspace_alone_whatever_server_is_named(
    fleet, workspace, tmp_path, target, make_items, quick_protocol, monkeypatch
):
    monkeypatch.setenv("OFA_SERVER", fleet._client.url)
    monkeypatch.setenv("OFA_TOKEN", fleet.client.token)
    with Workspace.open(tmp_path / "mine") as mine, Fleet.open(mine) as remote:
        records = remote.measure(target, make_items(2), quick_protocol)
        stored = mine.store.measurements("local")
    assert workspace.store.measurements("local") == [], "everybody's local would be one device there"
    drop = [record.without("id").to_json() for record in records]
    assert drop == [{key: value for key, value in record.items() if key != "id"} for record in stored]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_another_server_needs_its_token(fleet, workspace, make_items, target, monkeypatch, token):
    monkeypatch.delenv("OFA_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("OFA_TOKEN", token)
    with pytest.raises(UsageError, match="OFA_TOKEN"), Fleet.open(workspace, fleet._client.url) as other:
        other.measure(target, make_items(1))


class Listener(BaseHTTPRequestHandler):
    """Any other server: it notes what it is told."""

    heard: ClassVar[list[str]] = []

    def do_GET(self):
        self.heard.append(str(self.headers))
        self.send_response(401)
        self.end_headers()


@pytest.mark.parametrize("serves", [False, True])
def test_the_workspaces_token_goes_to_no_other_server(workspace, monkeypatch, serves):
    monkeypatch.delenv("OFA_TOKEN", raising=False)
    token = admin_token(workspace.root)
    with HTTPServer(("127.0.0.1", 0), Listener) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        monkeypatch.setenv("OFA_SERVER", url)
        with announced(workspace.root, "http://127.0.0.1:1") if serves else contextlib.nullcontext():
            with pytest.raises(UsageError, match=f"{url} needs a token: put it in OFA_TOKEN"):
                server_elsewhere(workspace)
            with pytest.raises(UsageError, match="OFA_TOKEN"), Fleet.open(workspace):
                pass
        monkeypatch.setenv("OFA_TOKEN", "another")
        with pytest.raises(UsageError, match="refuses the token"), Fleet.open(workspace) as fleet:
            fleet.client.devices()
        other.shutdown()
    assert "Bearer another" in Listener.heard[0]
    assert token not in "".join(Listener.heard)


def test_the_workspaces_token_goes_to_its_own_server_by_any_name_of_this_machine(workspace, monkeypatch):
    monkeypatch.delenv("OFA_TOKEN", raising=False)
    with announced(workspace.root, "http://127.0.0.1:8800"):
        for url in ("http://localhost:8800/", "http://127.0.0.1:8800"):
            assert server_elsewhere(workspace, url).token == admin_token(workspace.root)
        for url in ("https://localhost:8800", "http://localhost:8801", "http://example.org:8800"):
            with pytest.raises(UsageError, match="OFA_TOKEN"):
                server_elsewhere(workspace, url)


def test_a_password_for_the_host_does_not_take_the_tokens_place(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine example.org login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = Client("http://example.org", "the-token")
    sent = []
    monkeypatch.setattr(client._session, "send", lambda request, **_: sent.append(request) or answer)
    answer = requests.Response()
    answer.status_code, answer._content = 200, b"[]"
    assert client.devices() == []
    assert sent[0].headers["Authorization"] == "Bearer the-token"
    client.close()


def test_a_server_that_is_not_a_url(workspace, monkeypatch):
    monkeypatch.setenv("OFA_TOKEN", "x")
    with pytest.raises(UsageError, match="http"):
        Fleet.open(workspace, "not a url")


def test_profiles_say_what_a_target_is(target):
    assert isinstance(target, TargetProfile)
    assert (target.name, target.runtime, target.threads) == ("local", "onnxruntime", 1)


def test_an_agent_outlives_a_restart_of_its_server(
    workspace, tmp_path, target, make_items, quick_protocol, monkeypatch
):
    monkeypatch.setenv("OFA_TOKEN", "token")
    app = create_app(workspace.store, "token", tmp_path / "blobs")
    first = LocalServer(app)
    with Fleet.open(workspace, first.url) as fleet:
        fleet.measure(target, make_items(1), quick_protocol)
        agent = fleet._agent.pid
        first.close()
        time.sleep(1)
        second = LocalServer(app, int(first.url.rsplit(":", 1)[1]))
        assert len(fleet.measure(target, make_items(2), quick_protocol)) == 2
        assert fleet._agent.pid == agent
    second.close()


def test_a_server_of_the_same_workspace_is_found_while_it_runs(workspace, target, make_items, quick_protocol, served):
    with Fleet.open(workspace) as fleet:
        assert (fleet.client.url, fleet.lasts) == (served, True)
        assert len(fleet.measure(target, make_items(1), quick_protocol)) == 1
    assert len(workspace.store.measurements("local")) == 1, "once, though server and command share the database"
    assert running(workspace.root) == served
    with announced(workspace.root, "http://another") as first:
        assert not first
    assert running(workspace.root) == served


@pytest.fixture
def served(workspace):
    """A server of the workspace, as another process would run it."""
    app = create_app(workspace.store, admin_token(workspace.root), workspace.root / "blobs" / "server")
    server = LocalServer(app)
    with announced(workspace.root, server.url):
        yield server.url
    assert running(workspace.root) is None
    server.close()


def test_what_a_colleague_measured_is_copied_here_once(workspace, tmp_path, served, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.routes_devices.PAGE", 3)
    monkeypatch.setenv("OFA_SERVER", served)
    monkeypatch.setenv("OFA_TOKEN", admin_token(workspace.root))

    def row(device, item):
        fields = {"device": device, "run": "r" + device, "item": str(item), "kind": "op", "key": f"k{item}"}
        return {**fields, "condition": {}, "measured_at": "2026-01-01T00:00:00Z"}

    nano, local = (TargetProfile(name=name, description="", runtime="onnxruntime") for name in ("nano", "local"))
    workspace.store.add_measurements([row("nano", i) for i in range(7)] + [row("local", 0)])
    with Workspace.open(tmp_path / "mine") as mine, Fleet.open(mine) as fleet:
        for more in range(3):
            fleet.fetch(nano)
            fleet.fetch(local)
            assert [r["key"] for r in mine.store.measurements("nano")] == [f"k{i}" for i in range(7 + more)]
            workspace.store.add_measurements([row("nano", 7 + more)])
        assert mine.store.measurements("local") == [], "that is another machine"
        mine.store.move_cursor(served, "nano", 10**6)
        fleet.fetch(nano)
        assert len(mine.store.measurements("nano")) == 10, "the server has another database now"


def test_the_admin_token_is_its_owners(tmp_path):
    token = admin_token(tmp_path)
    assert len(token) >= 43
    (tmp_path / "token").chmod(0o644)
    assert admin_token(tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_the_agents_token_ends_with_the_command(workspace, target, make_items, quick_protocol, served):
    with Fleet.open(workspace) as fleet:
        fleet.measure(target, make_items(1), quick_protocol)
        assert len(workspace.store.access.tokens("local")) == 1
    assert workspace.store.access.tokens("local") == []
