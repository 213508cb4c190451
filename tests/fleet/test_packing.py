"""The packed agent: one small file that needs nothing but Python."""

import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.agent_archive import pack_agent

LARGEST = 200_000
SOURCES = Path(__file__).parents[2] / "device_agents"


@pytest.fixture
def packed(tmp_path):
    """The file, in a folder of its own."""
    folder = tmp_path / "device"
    folder.mkdir()
    pack_agent(folder / "ofa-agent.pyz")
    return folder / "ofa-agent.pyz"


def run(packed, *arguments, **more):
    """The agent as on a device without any installed package."""
    command = [sys.executable, "-I", "-S", packed.name, *arguments]
    return subprocess.run(command, cwd=packed.parent, capture_output=True, text=True, timeout=60, **more)


def test_is_one_small_file_with_every_module_and_nothing_else(packed):
    assert packed.stat().st_size < LARGEST
    assert os.access(packed, os.X_OK)
    assert packed.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    modules = {f"device_agents/{path.relative_to(SOURCES).as_posix()}" for path in SOURCES.rglob("*.py")}
    assert set(zipfile.ZipFile(packed).namelist()) == modules | {"__main__.py"}


def test_the_same_agent_gives_the_same_bytes(packed, tmp_path):
    assert pack_agent(tmp_path / "again.pyz") == packed.read_bytes()


def test_answers_help_and_version_without_any_package(packed):
    assert "--code CODE" in run(packed, "--help").stdout
    assert run(packed, "--version").stdout.strip()


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="name another file with -o"):
        pack_agent(tmp_path / "none" / "ofa-agent.pyz")


def test_the_command_writes_it(ofa_deploy, tmp_path):
    done = ofa_deploy("agent", "pack", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["bytes"] == (tmp_path / "ofa-agent.pyz").stat().st_size
    assert ofa_deploy("agent", "pack", "-o", "none/x.pyz", cwd=tmp_path).returncode == 2


def test_the_command_runs_an_agent_here(ofa_deploy, tmp_path):
    done = ofa_deploy("agent", "run", "--state", str(tmp_path / "state"), cwd=tmp_path)
    assert done.returncode == 2
    assert "--server URL --code CODE" in done.stderr
    assert "usage: ofa-deploy agent run" in ofa_deploy("agent", "run", "--help", cwd=tmp_path).stdout


class OneRun(BaseHTTPRequestHandler):
    """Enrols anybody, and gives out one run for a runtime that no agent has."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answer(self.path, body)
        data = json.dumps(answer).encode() if answer else b""
        self.send_response(200 if answer else 204)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def one_run():
    """A server with ``url`` and the requests that it got, in ``asked``."""
    work = {"run": "r1", "lease_s": 60, "run_s": 60, "items": [], "sentinels": [], "settings": {}}
    work["runtime"] = {"runtime": "none-such"}
    answers = {"/api/enroll": [{"device": "d", "token": "d.x"}], "/api/claim": [work]}
    with HTTPServer(("127.0.0.1", 0), OneRun) as server:
        server.asked = []

        def answer(path, body):
            server.asked.append((path, body))
            return answers[path].pop() if answers.get(path) else None

        server.answer, server.url = answer, f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_enrols_claims_and_starts_its_worker_from_the_archive(packed, one_run):
    done = run(packed, "--server", one_run.url, "--code", "code", "--state", "state", "--once")
    assert done.returncode == 0, done.stderr
    paths = [path for path, _ in one_run.asked]
    assert paths == ["/api/enroll", "/api/claim", "/api/runs/r1/failure", "/api/claim"]
    failure = one_run.asked[2][1]
    assert failure["reason"] == "unsupported-op"
    assert "unknown runtime 'none-such'; this agent has adb-onnxruntime" in failure["message"], "the worker said so"
