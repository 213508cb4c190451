"""A server that speaks the agents' contract from memory, over real HTTP, and can be told to be away."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from device_agents import facts

SETTINGS = {
    "rounds_min": 3,
    "rounds_max": 3,
    "min_s": 0,
    "timings": 2,
    "burst_ms": 0.05,
    "warmup_ms": 0,
    "warmup_calls": 1,
}
MODEL = b"a model"
SHA = hashlib.sha256(MODEL).hexdigest()


def make_work(*keys, run="r1", sentinels=("good",), provider="none", run_s=60, lease_s=8, settings=None):
    """A run whose items do what their keys say, see ``faulty_worker``."""
    return {
        "run": run,
        "attempt": 1,
        "device": "d",
        "lease_s": lease_s,
        "run_s": run_s,
        "runtime": {"runtime": "faulty", "provider": provider, "precision": "fp32", "batch": 1, "threads": 1},
        "settings": settings or SETTINGS,
        "sentinels": [{"item": "sentinel", "blob": SHA, "key": key} for key in sentinels],
        "items": [{"item": f"i{n}", "blob": SHA, "key": key} for n, key in enumerate(keys)],
    }


class FakeFleet:
    """The server's memory; a test lays work out in ``waiting`` and reads what came."""

    def __init__(self):
        self.codes, self.tokens, self.revoked = {"code": None}, {}, False
        self.waiting, self.running, self.results, self.failures = [], {}, {}, []
        self.asked = []  # (path, body)
        self.away = False  # answers 503
        self.refuse_results = None  # an HTTP status
        self.lose_answers = 0

    def answer(self, path, body, token):
        self.asked.append((path, body))
        if self.away:
            return 503, {"detail": "away"}
        if path == "/api/enroll":
            return self._enroll(body)
        if token not in self.tokens or self.revoked:
            return 401, {"detail": "no such token"}
        if path == "/api/claim":
            return self._claim(body)
        run, what = path.split("/")[3:]
        return getattr(self, "_" + what)(run, body)

    def _enroll(self, body):
        if body["code"] not in self.codes or self.codes[body["code"]] not in (None, body["secret"]):
            return 401, {"detail": "no such code"}
        self.codes[body["code"]] = body["secret"]
        token = "d." + body["secret"]
        self.tokens[token] = "d"
        return 200, {"device": "d", "token": token}

    def _claim(self, body):
        if body["run"] in self.running:
            return 200, self.running[body["run"]]
        if not self.waiting:
            time.sleep(min(body["wait_s"], 0.05))
            return 204, None
        work = self.waiting.pop(0)
        self.running[work["run"]] = work
        return 200, work

    def _progress(self, run, body):
        return (204, None) if run in self.running else (409, {"detail": "stale"})

    def _result(self, run, body):
        if self.refuse_results:
            return self.refuse_results, {"detail": "no"}
        if run not in self.running and self.results.get(run) != body:
            return 409, {"detail": "stale"}
        self.running.pop(run, None)
        new = run not in self.results
        self.results[run] = body
        return 200, {"new": new}

    def _failure(self, run, body):
        self.running.pop(run, None)
        self.failures.append((run, body["reason"], body["message"]))
        return 204, None

    def count(self, path):
        """How often a path was asked for."""
        return sum(asked.endswith(path) for asked, _ in self.asked)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        fleet = self.server.fleet
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path  # a proxy is asked for a whole URL
        status, answer = fleet.answer(path, body, self.headers.get("Authorization", "")[len("Bearer ") :])
        if fleet.lose_answers and status == 200:
            fleet.lose_answers -= 1
            self.close_connection = True
            return
        self.reply(status, b"" if answer is None else json.dumps(answer).encode())

    def do_GET(self):
        self.server.fleet.asked.append((self.path, None))
        self.reply(200, MODEL)

    def reply(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def fleet():
    """A ``FakeFleet`` at ``fleet.url``."""
    fleet = FakeFleet()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.fleet, server.daemon_threads, fleet.http = fleet, True, server
        server.handle_error = lambda *_: None  # agents are killed while they talk with us
        fleet.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield fleet
        server.shutdown()


@pytest.fixture
def work():
    """``work("good", "abort", …)``: a run for an agent."""
    return make_work


@pytest.fixture
def faulty_command():
    """How to start a worker with the faulty runtime."""
    return [sys.executable, str(Path(__file__).parent / "faulty_worker.py")]


@pytest.fixture
def wait_for():
    """``wait_for(condition)``: until it holds, or the test fails."""

    def wait(condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.02)

    return wait


@pytest.fixture
def system(tmp_path, monkeypatch):
    """``system({"proc/loadavg": "0.5 …"})``: a machine with these files and no others, whose process may use core 2."""
    monkeypatch.setattr(facts, "ROOT", str(tmp_path) + "/")
    monkeypatch.setattr(facts, "usable_cores", lambda: [2])

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write
