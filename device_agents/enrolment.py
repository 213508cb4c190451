"""How an agent gets its token: with a one-time code, once; from then on its state folder knows."""

import base64
import os

from device_agents.http import Refused, Server, Untrusted

SECRET_BYTES = 32


class CannotStart(Exception):
    """The command line, or what the server says to it, does not let the agent start; one line says what to do."""


def enrolled_server(state, url, code, ca, persist, facts):
    """The server with this agent's token, which is asked for first where the code is a new one.

    The agent makes the secret, and stores it before it asks: a lost answer, or a loss of power, costs nothing, as the
    same code with the same secret is answered in the same way again.

    Args:
        url, code, ca: from the command line, or None; what is not given is what it was the last time.
        persist: calls a function until the server is there.
        facts: function that says what the device is.

    Raises:
        CannotStart: something is missing, or the server refuses.
        OSError: the state folder cannot be written.
    """
    known = dict(state.identity)
    url, ca = url or known.get("server"), os.path.abspath(ca) if ca else known.get("ca")
    if not url or not (code or known.get("token")):
        raise CannotStart(
            "nothing in {} says which server this device is enrolled at; start with --server URL --code CODE, which "
            "`ofa-deploy device register` prints on the server".format(state.folder)
        )
    is_new = bool(code) and (code != known.get("code") or url != known.get("server"))
    if is_new:
        secret = base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).decode("ascii").rstrip("=")
        known = {"code": code, "secret": secret}
    open_server(url, None, ca)  # before anything is stored
    former = state.identity
    state.remember(**dict(known, server=url, ca=ca))
    if not known.get("token"):
        try:
            _enrol(state, persist, facts)
        except CannotStart:
            state.remember(**former)  # a wrong code does not cost the token that there was
            raise
    return open_server(url, state.identity["token"], ca)


def open_server(url, token, ca):
    """A ``Server``; a wrong URL or certificate file is ``CannotStart``."""
    try:
        return Server(url, token, ca)
    except ValueError as error:
        raise CannotStart(str(error)) from error


def _enrol(state, persist, facts):
    known = state.identity
    server = open_server(known["server"], None, known["ca"])

    def ask():
        body = {"code": known["code"], "secret": known["secret"], "facts": facts()}
        try:
            return server.call("POST", "/api/enroll", body)
        except Untrusted as error:  # somebody is there to read it, now
            raise CannotStart(str(error)) from error

    try:
        answer = persist(ask)
    except Refused as error:
        raise CannotStart(_refusal(error, server.url)) from error
    if not isinstance(answer, dict) or not {"device", "token"} <= set(answer):
        raise CannotStart("{} is not an ofa-deploy server: it does not know how to enrol a device".format(server.url))
    state.remember(**dict(known, device=answer["device"], token=answer["token"]))


def _refusal(error, url):
    if error.status in (401, 422):  # none of its codes, or nothing like one
        return (
            "{} does not accept the code: it is wrong, too old, or was used by another device; on the server, "
            "`ofa-deploy device register NAME --profile PROFILE` prints another".format(url)
        )
    return "{} does not enrol this device: {}".format(url, error)


def new_code_needed(url, device, error):
    """What to do about a token that the server does not accept any more."""
    return (
        "{} does not accept the token of {} ({}): it was revoked, or the server has another database; on the server, "
        "`ofa-deploy device register {}` prints a new code: start again with --server {} --code CODE".format(
            url, device, error, device, url
        )
    )
