"""What attackers and accidents send, to a server in a process of its own, whose memory is watched."""

import gzip
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import requests
from onnx import TensorProto, helper

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.onnx_files import refuse_other_files
from ofa_deploy.store import Store

MEGABYTE = 2**20
ROOM = 60 * MEGABYTE  # by which the server may grow: much less than what is sent to it


class Served:
    def __init__(self, folder):
        self.folder = folder
        command = [sys.executable, "-c", "from ofa_deploy.cli import main; main()", "--workspace", folder]
        command += ["serve", "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = ""
        while not lines.rstrip().endswith("}"):
            lines += self.process.stdout.readline()
        self.url = json.loads(lines)["url"]
        self.address = ("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        self.headers = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"}

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024

    def blobs(self):
        return list((self.folder / "blobs" / "server").iterdir())

    def put(self, data, name=None, **more):
        name = name or hashlib.sha256(data).hexdigest()
        return requests.put(f"{self.url}/api/blobs/{name}", data=data, headers={**self.headers, **more}, timeout=60)

    def post(self, path, data, **more):
        headers = {**self.headers, "Content-Type": "application/json", **more}
        return requests.post(self.url + path, data=data, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    running = Served(tmp_path_factory.mktemp("served"))
    running.post("/api/devices", json.dumps({"name": "x"}))  # everything that is loaded late
    running.put(b"x")
    for left in running.blobs():
        left.unlink()
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    running.process.stdout.close()


def send_without_end(served, path, head, megabytes):
    """Send a body in chunks until the server has had enough. Returns the status of its answer, 0 where it hung up."""
    with socket.create_connection(served.address, timeout=60) as connection:
        token = served.headers["Authorization"]
        connection.sendall(f"{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{head}\r\n".encode())
        part = b"100000\r\n" + b"x" * MEGABYTE + b"\r\n"
        try:
            for _ in range(megabytes):
                connection.sendall(part)
        except OSError:
            pass
        try:
            return int((connection.recv(100).split() or [b"", b"0"])[1])
        except OSError:
            return 0


def test_bodies_of_a_gigabyte_leave_memory_flat(served):
    before = served.memory()
    name = "0" * 64
    for path in (f"PUT /api/blobs/{name}", "POST /api/devices", "POST /api/enroll"):
        assert send_without_end(served, path, f"Content-Length: {2**30}\r\n", 0) == 413
        assert send_without_end(served, path, "Transfer-Encoding: chunked\r\n", 1024) in (0, 413)
    assert served.memory() - before < ROOM
    assert served.blobs() == []


def test_a_gigabyte_without_a_token_is_not_even_read(served):
    before = served.memory()
    answer = requests.post(f"{served.url}/api/jobs", data=b"x" * 8 * MEGABYTE, timeout=60)
    assert answer.status_code == 401
    assert served.memory() - before < ROOM


def test_compressed_bodies_are_refused(served):
    bomb = gzip.compress(b"0" * 50 * MEGABYTE)
    before = served.memory()
    for encoding in ("gzip", "GZIP", "br", "zstd", "identity, gzip"):
        for path in ("/api/jobs", "/api/devices", "/api/enroll"):
            answer = served.post(path, bomb, **{"Content-Encoding": encoding})
            assert answer.status_code == 415
        assert served.put(bomb, **{"Content-Encoding": encoding}).status_code == 415
    assert served.memory() - before < ROOM
    assert served.blobs() == []


NASTY = {
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"profile":' * 20_000 + b"1" + b"}" * 20_000,
    "deep in a field": b'{"name":"a","profile":{"a":' + b"[" * 400 + b"]" * 400 + b"}}",
    "a huge integer": b'{"name":' + b"9" * 100_000 + b"}",
    "a huge integer in a field": b'{"name":"a","profile":{"threads":' + b"9" * 4000 + b"}}",
    "a surrogate": b'{"name":"a","profile":{"description":"\\ud800"}}',
    "a surrogate as key": b'{"name":"a","\\udfff":1}',
    "a surrogate as key in a field": b'{"name":"a","profile":{"\\udfff":1}}',
    "nul": b'{"name":"a","profile":{"name":"\\u0000"}}',
    "nul as key": b'{"name":"a","profile":{"\\u0000":1}}',
    "double keys": b'{"name":"a","name":"b","profile":{}}',
    "nan": b'{"name":"a","profile":{"batch":NaN}}',
    "infinity": b'{"name":"a","profile":{"batch":1e999}}',
    "utf-16": '{"name":"a"}'.encode("utf-16"),
    "not utf-8": b'{"name":"\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"name":"a"}',
    "nothing": b"",
    "a number": b"1",
}


@pytest.mark.parametrize("body", NASTY.values(), ids=NASTY)
def test_json_that_is_meant_to_break_something(served, body):
    secret = b'"code":"' + b"c" * 22 + b'","secret":"' + b"s" * 43 + b'",'
    as_facts = b"{" + secret + b'"facts":' + body.replace(b'"name":"a",', b"") + b"}"
    for path, content in (
        ("/api/devices", body),
        ("/api/jobs", body),
        ("/api/enroll", body),
        ("/api/enroll", as_facts),
    ):
        answer = served.post(path, content)
        assert answer.status_code in (400, 401, 422), answer.text
        assert "Traceback" not in answer.text
        assert len(answer.content) < 3000


@pytest.mark.parametrize(
    "path",
    [
        "/api/blobs/../../token",
        "/api/blobs/..%2f..%2ftoken",
        "/api/blobs/%2e%2e",
        "/api/blobs/" + "A" * 64,
        "/api/jobs/..%2f..%2fofa.db",
        "/api/jobs/%00",
        "/api/jobs/%ff",
        "/api/devices/..%2ftoken",
        "/api/devices/%00/measurements",
        "/api/devices/a/measurements?after=-1",
        "/api/devices/a/measurements?after=99999999999999999999",
    ],
)
def test_paths_that_lead_elsewhere(served, path):
    with socket.create_connection(served.address, timeout=30) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {served.headers['Authorization']}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in (404, 422), answer
    assert served.headers["Authorization"].split()[1].encode() not in answer


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: "])
def test_clients_that_are_too_slow_are_hung_up_on(sent, tmp_path, monkeypatch):
    from ofa_deploy.fleet import serving
    from ofa_deploy.fleet.server import create_app
    from ofa_deploy.fleet.serving import LocalServer

    monkeypatch.setattr(serving, "HEADERS_S", 0.5)
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    running = LocalServer(create_app(store, "token", tmp_path / "blobs"))
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=20) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        try:
            while connection.recv(100):
                pass
        except ConnectionError:
            pass
        assert time.monotonic() - started < 19, "the server closed it, not our time-out"
    running.close()
    store.close()


def test_a_long_answer_is_waited_for_and_silence_after_it_is_not(tmp_path, monkeypatch):
    from ofa_deploy.fleet import serving
    from ofa_deploy.fleet.server import create_app
    from ofa_deploy.fleet.serving import LocalServer, PatientProtocol
    from ofa_deploy.fleet.tokens import digest
    from ofa_deploy.store import utc_now

    monkeypatch.setattr(serving, "HEADERS_S", 0.5)
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    store.access.register("phone", {}, digest("code"), utc_now(60))
    store.access.enrol(digest("code"), digest("s" * 43), {})
    running = LocalServer(create_app(store, "token", tmp_path / "blobs"))
    body = b'{"facts":{},"wait_s":2}'
    head = f"POST /api/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer phone.{'s' * 43}"
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=20) as connection:
        for _ in range(2):  # the second request comes on the same connection
            started = time.monotonic()
            more = f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + more).encode() + body)
            assert connection.recv(1000).split()[1] == b"204"
            assert 1.5 < time.monotonic() - started < 15
        started = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - started < 4, "uvicorn itself waits for five seconds"
    running.close()
    store.close()
    assert PatientProtocol.open == {}


def test_a_connection_that_a_forked_process_holds_open_ends_for_the_client(tmp_path, monkeypatch):
    """Else the next request of a command goes to nobody, and the command waits until its patience is over."""
    from ofa_deploy.fleet import serving
    from ofa_deploy.fleet.server import create_app

    monkeypatch.setattr(serving, "HEADERS_S", 0.3)
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    running = serving.LocalServer(create_app(store, "token", tmp_path / "blobs"))
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).split()[1] == b"200"
        (protocol,) = serving.PatientProtocol.open.values()
        held = protocol._watched.get_extra_info("socket").dup()  # as a forked process has it
        rest = b"?"
        while rest:
            rest = connection.recv(1000)
        held.close()
    running.close()
    store.close()


def test_a_body_that_trickles_in_is_refused(tmp_path, monkeypatch):
    from ofa_deploy.fleet import guard
    from ofa_deploy.fleet.server import create_app
    from ofa_deploy.fleet.serving import LocalServer

    monkeypatch.setattr(guard, "BODY_S", 0.5)
    store = Store(f"sqlite:///{tmp_path / 'ofa.db'}")
    running = LocalServer(create_app(store, "token", tmp_path / "blobs"))
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=20) as connection:
        head = b"POST /api/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\nContent-Length: 100\r\n\r\n{"
        connection.sendall(head)
        assert connection.recv(100).split()[1] == b"408"
    running.close()
    store.close()


def external(place):
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    inner = helper.make_node("Constant", [], ["c"], value=tensor)
    graph = helper.make_graph([inner] if place == "node" else [], "g", [], [])
    if place == "initializer":
        graph.initializer.append(tensor)
    if place == "sparse":
        graph.sparse_initializer.add(values=tensor)
    if place == "branch":
        branch = helper.make_graph([inner], "b", [], [])
        graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    model = helper.make_model(graph)
    if place == "function":
        model.functions.append(helper.make_function("d", "f", [], ["c"], [inner], []))
    if place == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    return model.SerializeToString()


@pytest.mark.parametrize("place", ["initializer", "node", "sparse", "branch", "function", "training"])
def test_a_model_with_weights_elsewhere_is_refused(served, place):
    answer = served.put(external(place))
    assert answer.status_code == 422
    assert "other files" in answer.json()["detail"]
    assert served.blobs() == []


def test_a_model_with_its_weights_inside_is_taken(served, make_items):
    (item,) = make_items(1)
    assert onnx.load_from_string(item.model).graph.initializer
    assert served.put(item.model).status_code == 204
    served.blobs()[0].unlink()


def test_a_model_of_endless_fields_is_refused_soon(tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_deploy.fleet.onnx_files.FIELDS_AT_MOST", 1000)
    (tmp_path / "model").write_bytes(b"\x08\x01" * 2000)
    with pytest.raises(UsageError, match="more than 1000 fields"):
        refuse_other_files(tmp_path / "model")
