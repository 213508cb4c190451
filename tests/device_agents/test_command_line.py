import ssl
import stat
import subprocess

import pytest

from device_agents.__main__ import main
from device_agents.http import Server, ServerAway, Untrusted


@pytest.fixture
def start(fleet, tmp_path, capsys, monkeypatch):
    """``start(…)``: an agent as typed, until there is no work; its exit code, and what it said."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments, server=fleet.url):
        begin = ["--server", server] if server else []
        code = main([*begin, "--state", str(tmp_path / "state"), "--once", *arguments])
        return code, capsys.readouterr().err

    return run


def test_a_device_enrols_once_and_later_starts_know_everything(start, fleet, tmp_path):
    assert start("--code", "code") == (0, f"ofa-agent: d works for {fleet.url}\n")
    assert start(server=None)[0] == 0
    assert start("--code", "code")[0] == 0, "a start script may repeat itself"
    assert fleet.count("/enroll") == 1
    body = next(body for path, body in fleet.asked if path.endswith("/enroll"))
    assert len(body["secret"]) == 43
    assert body["facts"]["python"]
    stored = tmp_path / "state" / "agent.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700


def test_an_enrolment_whose_answer_was_lost_is_repeated_with_the_same_secret(start, fleet, monkeypatch):
    monkeypatch.setattr("device_agents.agent.BACKOFF_S", (0.01, 0.02))
    fleet.lose_answers = 1
    assert start("--code", "code")[0] == 0
    assert fleet.count("/enroll") == 2
    assert len(fleet.tokens) == 1


def test_another_code_enrols_again(start, fleet):
    fleet.codes["other"] = None
    assert start("--code", "code")[0] == start("--code", "other")[0] == 0
    assert len(fleet.tokens) == 2


def test_a_wrong_code_does_not_cost_the_token(start):
    start("--code", "code")
    assert start("--code", "wrong")[0] == 2
    assert start(server=None)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "options", "status", "words"),
    [
        (["--code", "wrong"], {}, 2, "does not accept the code"),
        ([], {}, 2, "start with --server URL --code CODE"),
        (["--code", "code"], {"server": "fleet.example"}, 2, "http:// or https://"),
        (["--code", "code"], {"server": "ftp://fleet.example"}, 2, "http:// or https://"),
        (["--code", "code", "--state", "/proc/none"], {}, 2, "cannot write to /proc/none"),
        (["--code", "code", "--ca", "/no/ca.pem"], {"server": "https://127.0.0.1:1"}, 2, "cannot read certificates"),
    ],
)
def test_what_cannot_start_says_so_in_one_line(start, arguments, options, status, words):
    code, said = start(*arguments, **options)
    assert code == status
    assert words in said
    assert said.count("\n") == 1


def test_a_revoked_token_says_how_to_get_another(start, fleet):
    start("--code", "code")
    fleet.revoked = True
    code, said = start(server=None)
    assert code == 1
    assert "`ofa-deploy device register d` prints a new code" in said.splitlines()[-1]


def test_two_agents_do_not_share_a_folder(start, tmp_path):
    from device_agents.state import State

    state = State(str(tmp_path / "state"))
    code, said = start("--code", "code")
    assert (code, said.count("\n")) == (1, 1)
    assert "another agent runs" in said
    state.close()
    assert start("--code", "code")[0] == 0


def test_an_agent_that_a_command_started_leaves_nothing(start, tmp_path):
    import os

    assert start("--code", "code", "--parent", str(os.getppid()))[0] == 0
    assert not (tmp_path / "state").exists()


def test_nobody_at_home_is_a_server_that_is_away():
    with pytest.raises(ServerAway):
        Server("http://127.0.0.1:1", "token").call("GET", "/", timeout=5)


def test_a_proxy_is_honoured(fleet, monkeypatch):
    monkeypatch.setenv("http_proxy", fleet.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fleet.tokens["t"] = "d"
    claim = {"facts": {}, "wait_s": 0, "queue": "", "run": None}
    assert Server("http://fleet.invalid", "t").call("POST", "/api/claim", claim) is None
    assert fleet.count("/api/claim") == 1


def test_a_redirect_does_not_take_the_token_elsewhere(fleet, monkeypatch):
    monkeypatch.setattr(fleet, "answer", lambda path, body, token: (302, {}))
    with pytest.raises(ServerAway, match="302"):
        Server(fleet.url, "t").call("POST", "/api/claim", {})


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    names = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fleet -addext subjectAltName=IP:127.0.0.1"
    try:
        done = subprocess.run([*command.split(), "-out", names[0], "-keyout", names[1]], capture_output=True)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        pytest.skip("needs the openssl command to make a certificate")
    return names


def test_a_server_with_a_certificate_of_its_own_needs_it_named(start, fleet, certificate, serve_tls):
    url = serve_tls(*certificate)
    code, said = start("--code", "code", server=url)
    assert code == 2
    assert "give the file with --ca" in said
    assert said.count("\n") == 1
    assert start("--code", "code", "--ca", certificate[0], server=url)[0] == 0
    assert start(server=None)[0] == 0, "the file is remembered"
    with pytest.raises(Untrusted):
        Server(url, "t").call("POST", "/api/claim", {})


@pytest.fixture
def serve_tls(fleet):
    """``serve_tls(cert, key)``: the fleet's URL over TLS."""

    def wrap(cert, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        fleet.http.socket = context.wrap_socket(fleet.http.socket, server_side=True)
        return fleet.url.replace("http:", "https:")

    return wrap


def test_help_and_version(capsys):
    for argument, words in (("--help", "--code"), ("--version", "0.")):
        with pytest.raises(SystemExit) as done:
            main([argument])
        assert done.value.code == 0
        assert words in capsys.readouterr().out
