"""The agent's side of the server's API, over urllib: proxies and certificate settings of the environment count."""

import contextlib
import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException


class ServerAway(Exception):
    """The server did not answer, or answered that it cannot now: try again later."""


class Untrusted(ServerAway):
    """No secure connection to the server: its certificate is not trusted, or it does not speak TLS.

    It may come right by itself: many devices do not know the time when they start, and no certificate is valid then.
    """


class Refused(Exception):
    """The server answered no; ``status`` is the HTTP status."""

    def __init__(self, status, message):
        super().__init__("HTTP {}: {}".format(status, message))
        self.status = status


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes to the server that was named, and to no other."""

    def redirect_request(self, request, *answer):
        """Follow none."""


class Server:
    """One server and the token for it, if there is one yet.

    Raises:
        ValueError: that is not a URL, or the file of certificates cannot be used.
    """

    def __init__(self, url, token=None, ca_file=None):
        if not url.startswith(("http://", "https://")):
            raise ValueError("a server is named by an http:// or https:// URL, not by {!r}".format(url))
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": "ofa-agent"}
        if token:
            self._headers["Authorization"] = "Bearer " + token
        handlers = [NoRedirects()]
        if self.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_trust(ca_file or os.environ.get("OFA_CA_FILE"))))
        self._open = urllib.request.build_opener(*handlers).open

    def call(self, method, path, body=None, timeout=30.0):
        """One JSON request. Returns the answer as JSON, or None for 204.

        Raises:
            ServerAway: no connection, a time-out, a redirect, a 5xx or a 429.
            Refused: any other 4xx.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode("utf-8")
        answer = self._request(method, path, data, timeout)
        try:
            return json.loads(answer.decode("utf-8")) if answer else None
        except ValueError as error:
            raise ServerAway("{} did not answer with JSON".format(self.url)) from error

    def blob(self, sha256, timeout=300.0):
        """A model file's bytes, checked against its hash."""
        data = self._request("GET", "/api/blobs/" + sha256, None, timeout)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ServerAway("model {} arrived damaged".format(sha256[:12]))
        return data

    def _request(self, method, path, data, timeout):
        headers = dict(self._headers)
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310
        try:
            with self._open(request, timeout=timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, EOFError, ValueError, HTTPException) as error:  # URLError, time-outs, broken connections
            raise _away(getattr(error, "reason", error)) from error


def _trust(ca_file):
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError("cannot read certificates from {}: {}".format(ca_file, error)) from error


def _refusal(error):
    """What an HTTP status means to an agent."""
    with error:
        text = error.read(2000).decode("utf-8", "replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):  # else it is not from our server: its text must do
        text = str(json.loads(text)["detail"])
    if error.code in (408, 429) or error.code >= 500:
        return ServerAway("HTTP {}: {}".format(error.code, text))
    if error.code < 400:
        return ServerAway("HTTP {}: it sends us to {}".format(error.code, error.headers.get("Location")))
    return Refused(error.code, text)


def _away(reason):
    if isinstance(reason, (ssl.SSLError, ssl.CertificateError)):
        return Untrusted(
            "no trusted connection ({}); if the server has a certificate of its own, give the file with --ca; else "
            "check the URL, and this device's clock".format(reason)
        )
    return ServerAway(str(reason) or type(reason).__name__)
