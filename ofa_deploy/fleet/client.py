"""The host's side of the server's API, over ``requests``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from ofa_deploy.errors import OfaDeployError, UsageError

TRIES = 6
FIRST_PAUSE_S = 0.2
TIMEOUT_S = (5.0, 120.0)  # to connect, between two bytes
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """One server. Requests that fail for the moment are repeated, with pauses that double.

    Raises (all methods):
        UsageError: the server refuses the token, or what was asked.
        OfaDeployError: the server does not answer, or is broken.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"OFA_SERVER should be an http:// or https:// URL, not {url!r}")
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.trust_env = parts.hostname not in LOOPBACK  # no proxy, no netrc on the way to oneself

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def submit(self, job: Mapping[str, Any], models: Mapping[str, bytes]) -> str:
        """Upload the models (by sha256) and queue the job. Returns its id."""
        for attempt in range(2):
            for sha256, model in models.items():
                self._request("PUT", f"/api/blobs/{sha256}", data=model)
            response = self._request("POST", "/api/jobs", json=job, accept=(409,) if attempt == 0 else ())
            if response.status_code != 409:  # another job's end can take shared models away: upload again
                break
        return str(response.json()["id"])

    def register(self, device: str, profile: Mapping[str, Any]) -> dict[str, Any]:
        """Make a device known: ``code`` lets an agent enrol as it."""
        return self._request("POST", "/api/devices", json={"name": device, "profile": profile}).json()

    def status(self, job: str) -> dict[str, Any]:
        """How far a job is."""
        return self._request("GET", f"/api/jobs/{job}").json()

    def records(self, job: str) -> list[dict[str, Any]]:
        """The records of a job, each with its item's ``position``."""
        return self._request("GET", f"/api/jobs/{job}/records").json()

    def cancel(self, job: str) -> None:
        """End a job."""
        self._request("DELETE", f"/api/jobs/{job}")

    def devices(self) -> list[dict[str, Any]]:
        """All devices the server knows."""
        return self._request("GET", "/api/devices").json()

    def _request(self, method: str, path: str, accept: tuple[int, ...] = (), **content: Any) -> requests.Response:
        pause = FIRST_PAUSE_S
        for left in range(TRIES - 1, -1, -1):
            try:
                response = self._session.request(method, self.url + path, timeout=TIMEOUT_S, **content)
            except (requests.ConnectionError, requests.Timeout) as error:
                problem = f"the server {self.url} does not answer ({_short(error)}); is it running?"
            else:
                if response.status_code < 500 and response.status_code != 429:
                    return self._checked(response, accept)
                problem = f"the server {self.url} answered {response.status_code}: {_detail(response)}"
            if left:
                time.sleep(pause)
                pause *= 2
        raise OfaDeployError(problem)

    def _checked(self, response: requests.Response, accept: tuple[int, ...]) -> requests.Response:
        if response.status_code == 401:
            raise UsageError(f"the server {self.url} refuses the token; put its token in OFA_TOKEN")
        if response.status_code >= 400 and response.status_code not in accept:
            raise UsageError(f"the server {self.url} refused: {_detail(response)}")
        return response


def _detail(response: requests.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text.split())[:300] or str(response.reason)


def _short(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return type(getattr(cause, "reason", cause)).__name__
