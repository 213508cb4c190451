import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import requests

SERVE = [sys.executable, "-c", "from ofa_deploy.cli import main; main()", "serve"]


@pytest.fixture
def serve(tmp_path):
    """``serve("--port", "0")`` starts a server, and returns it with what it says."""
    started = []

    def start(*options):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [*SERVE, "--json", *options],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        return process, json.loads(said)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_server_from_start_to_end(serve, tmp_path, ofa_deploy):
    process, said = serve("--port", "0")
    assert said["found_by_commands"]
    assert requests.get(said["url"] + "/openapi.json", timeout=30).status_code == 200
    code = json.loads(ofa_deploy("device", "register", "phone", "--profile", "local", "--json", cwd=tmp_path).stdout)
    assert code["server_runs"]
    assert code["command"] == f"python3 ofa-agent.pyz --server {said['url']} --code {code['code']}"
    body = {"code": code["code"], "secret": "s" * 43, "facts": {"cpu": "x"}}
    assert requests.post(said["url"] + "/api/enroll", json=body, timeout=30).status_code == 200
    (listed,) = json.loads(ofa_deploy("device", "list", "--json", cwd=tmp_path).stdout)
    assert (listed["name"], listed["online"], listed["profile"]["runtime"]) == ("phone", True, "onnxruntime")
    assert "online" in ofa_deploy("device", "list", cwd=tmp_path).stdout
    shown = ofa_deploy("device", "show", "phone", cwd=tmp_path).stdout
    assert "cpu" in shown
    assert "token of 20" in shown
    assert ofa_deploy("device", "revoke", "phone", cwd=tmp_path).returncode == 0
    assert "revoked" in ofa_deploy("device", "list", cwd=tmp_path).stdout
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    *events, last = err.splitlines()
    assert [line.split()[1] for line in events] == ["enrolled", "revoked"]
    assert last.startswith("ofa-deploy: the server has stopped")
    assert oct((tmp_path / ".ofa" / "token").stat().st_mode)[-3:] == "600"


def test_a_second_server_serves_but_commands_keep_to_the_first(serve):
    _, first = serve("--port", "0")
    process, second = serve("--port", "0")
    assert (first["found_by_commands"], second["found_by_commands"]) == (True, False)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def one_line(done, code):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken(tmp_path, ofa_deploy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another with --port" in one_line(ofa_deploy("serve", "--port", str(port), cwd=tmp_path), 1)


def test_other_machines_are_let_in_only_with_tls_or_on_demand(tmp_path, ofa_deploy):
    refused = one_line(ofa_deploy("serve", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path), 2)
    assert "--tls-cert" in refused
    assert "--insecure" in refused
    assert "both" in one_line(ofa_deploy("serve", "--tls-cert", "x", cwd=tmp_path), 2)
    assert "cannot use" in one_line(ofa_deploy("serve", "--tls-cert", "x", "--tls-key", "y", cwd=tmp_path), 2)
    assert "cannot listen" in one_line(ofa_deploy("serve", "--host", "no.such.host.invalid", cwd=tmp_path), 2)


def test_tls_with_an_authority_of_ones_own(serve, tmp_path, ofa_deploy, monkeypatch):
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    make += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "c.pem"]
    try:
        subprocess.run(make, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    _, said = serve("--host", "0.0.0.0", "--port", "0", "--tls-cert", "c.pem", "--tls-key", "key.pem")
    assert said["url"].startswith("https://127.0.0.1:")
    assert "OFA_CA_FILE" in one_line(ofa_deploy("device", "list", cwd=tmp_path), 2)
    monkeypatch.setenv("OFA_CA_FILE", "nothing")
    assert "there is no file nothing" in one_line(ofa_deploy("device", "list", cwd=tmp_path), 2)
    monkeypatch.setenv("OFA_CA_FILE", str(tmp_path / "c.pem"))
    assert ofa_deploy("device", "list", "--json", cwd=tmp_path).stdout == "[]\n"


def test_a_registered_device_is_real_unless_it_is_said_to_be_a_stand_in(tmp_path, ofa_deploy):
    for name, *options in (("real",), ("made-up", "--simulated")):
        done = ofa_deploy("device", "register", name, "--profile", "jetson_nano", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    listed = json.loads(ofa_deploy("device", "list", "--json", cwd=tmp_path).stdout)
    assert {device["name"]: device["profile"]["runtime"] for device in listed} == {
        "real": "tensorrt",
        "made-up": "simulated",
    }
    done = ofa_deploy("device", "register", "x", "--profile", "local", "--simulated", cwd=tmp_path)
    assert "no figures to simulate" in one_line(done, 2)


def test_registering_works_without_a_server_and_says_that_one_is_needed(tmp_path, ofa_deploy):
    done = ofa_deploy("device", "register", "phone", "--profile", "local", cwd=tmp_path)
    assert done.returncode == 0
    assert "ofa-deploy serve" in done.stdout
    assert "ofa-deploy agent pack" in done.stdout
    assert "--server https://HOST:8800 --code " in done.stdout


def test_devices_that_cannot_be(tmp_path, ofa_deploy):
    assert "needs no registration" in one_line(
        ofa_deploy("device", "register", "local", "--profile", "local", cwd=tmp_path), 2
    )
    assert "unknown profile" in one_line(ofa_deploy("device", "register", "x", "--profile", "nope", cwd=tmp_path), 2)
    assert "name" in one_line(ofa_deploy("device", "register", "a/b", "--profile", "local", cwd=tmp_path), 2)
    assert "there is no device" in one_line(ofa_deploy("device", "show", "x", cwd=tmp_path), 2)
    assert "there is no device" in one_line(ofa_deploy("device", "revoke", "x", cwd=tmp_path), 2)
    assert ofa_deploy("device", "list", "--json", cwd=tmp_path).stdout == "[]\n"
