"""The agent's side of the server's API, over urllib: proxies and certificate settings of the environment count."""

import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request


class ServerAway(Exception):
    """The server did not answer, or answered that it cannot now: try again later."""


class Refused(Exception):
    """The server answered no; ``status`` is the HTTP status."""

    def __init__(self, status, message):
        super().__init__("HTTP {}: {}".format(status, message))
        self.status = status


class Server:
    """One server and the token for it."""

    def __init__(self, url, token, ca_file=None):
        if not url.startswith(("http://", "https://")):
            raise ValueError("a server is named by an http:// or https:// URL, not by {!r}".format(url))
        self.url = url.rstrip("/")
        self._headers = {"Authorization": "Bearer " + token, "User-Agent": "ofa-agent"}
        secure = self.url.startswith("https:")
        self._tls = ssl.create_default_context(cafile=ca_file or os.environ.get("OFA_CA_FILE")) if secure else None

    def call(self, method, path, body=None, timeout=30.0):
        """One JSON request. Returns the answer as JSON, or None for 204.

        Raises:
            ServerAway: no connection, a time-out, a 5xx or a 429.
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
            with urllib.request.urlopen(request, timeout=timeout, context=self._tls) as response:  # noqa: S310
                return response.read()
        except urllib.error.HTTPError as error:
            with error:
                message = error.read(2000).decode("utf-8", "replace")
            if error.code >= 500 or error.code == 429:
                raise ServerAway("HTTP {}: {}".format(error.code, message)) from error
            raise Refused(error.code, message) from error
        except (OSError, EOFError, ValueError) as error:  # URLError, time-outs, broken connections
            raise ServerAway(str(getattr(error, "reason", error))) from error
