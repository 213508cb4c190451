"""The host's side of the server's API, over ``requests``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ofa_deploy.errors import DeviceUnavailable, OfaDeployError, UsageError
from ofa_deploy.fleet.known_devices import DeviceDetails, KnownDevice
from ofa_deploy.json_types import JSON
from ofa_deploy.store import Record

if TYPE_CHECKING:
    import requests

    from ofa_deploy.fleet.schemas import Admission, JobRequest, JobStatus

TRIES = 6
FIRST_PAUSE_S = 0.2
TIMEOUT_S = (5.0, 120.0)  # to connect, between two bytes
TLS_REMEDY = "put the certificate of the server, or of who signed it, as a PEM file in OFA_CA_FILE"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class MeasurementPage:
    """Some of a device's measurement records, oldest first.

    Attributes:
        last: the ``id`` of the last of them; where there are none, that after which they were asked for.
        newest: the largest ``id`` of all that the device has.
    """

    records: list[Record]
    last: int
    newest: int


class Client:
    """One server. Requests that fail for the moment are repeated, with pauses that double.

    Raises (all methods):
        UsageError: the server refuses the token, or what was asked; or there is no secure connection.
        DeviceUnavailable: the device that should work is not there.
        OfaDeployError: the server does not answer, or is broken.
    """

    def __init__(self, url: str, token: str) -> None:
        import requests  # which takes as long as a small search, and most commands ask no server

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"OFA_SERVER should be an http:// or https:// URL, not {url!r}")
        self.url, self.token = url.rstrip("/"), token
        self._session = requests.Session()
        self._session.auth = self._authorise  # a header alone would give way to what ~/.netrc has for the host
        authorities = os.environ.get("OFA_CA_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
        if authorities and parts.scheme == "https":
            if not Path(authorities).exists():
                raise UsageError(f"there is no file {authorities}; {TLS_REMEDY}")
            self._session.verify = authorities
        self._session.trust_env = parts.hostname not in LOOPBACK  # no proxy, no netrc on the way to oneself

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def submit(self, job: JobRequest, models: Mapping[str, bytes]) -> str:
        """Queue a job, and upload its models (by sha256) where the server lacks some. Returns its id."""
        asked = job.model_dump(mode="json", exclude_unset=True)
        for _ in range(3):  # another job's end can take shared models away: upload again
            response = self._request("POST", "/api/jobs", json=asked, accept=(409,))
            if response.status_code != 409:
                return str(response.json()["id"])
            for sha256, model in models.items():
                self._request("PUT", f"/api/blobs/{sha256}", data=model)
        raise OfaDeployError(f"the server {self.url} lost the models of a job: {_detail(response)}; try again")

    def status(self, job: str, wait_s: float = 0.0) -> JobStatus:
        """How far a job is; while it is active, only after ``wait_s``, or as soon as it ends.

        A server of an earlier version answers at once.
        """
        from ofa_deploy.fleet.schemas import JobStatus

        told = self._request("GET", f"/api/jobs/{job}", params={"wait_s": wait_s} if wait_s else None).json()
        return JobStatus.model_validate(
            {name: told.get(name) for name in JobStatus.model_fields}, strict=False
        )  # whatever the version

    def records(self, job: str) -> dict[int, Record]:
        """The records of a job, by the position of their item."""
        found = self._request("GET", f"/api/jobs/{job}/records").json()
        return {record.pop("position"): record for record in found}

    def cancel(self, job: str) -> None:
        """End a job."""
        self._request("DELETE", f"/api/jobs/{job}")

    def devices(self) -> list[KnownDevice]:
        """All devices that the server knows."""
        return [KnownDevice.from_json(one) for one in self._request("GET", "/api/devices").json()]

    def device(self, name: str) -> DeviceDetails:
        """One device, with its tokens and newest jobs."""
        return DeviceDetails.from_json(self._request("GET", f"/api/devices/{quote(name, safe='')}").json())

    def register(self, name: str, profile: Mapping[str, JSON], queue: str = "") -> Admission:
        """Let a device in."""
        from ofa_deploy.fleet.schemas import Admission

        body = {"name": name, "profile": profile, "queue": queue}
        return Admission.model_validate(self._request("POST", "/api/devices", json=body).json())

    def revoke(self, name: str) -> None:
        """End a device's tokens, codes and jobs."""
        self._request("POST", f"/api/devices/{quote(name, safe='')}/revoke")

    def measurements(self, device: str, after: int) -> MeasurementPage:
        """A page of a device's records whose ``id`` is larger than ``after``."""
        path = f"/api/devices/{quote(device, safe='')}/measurements"
        page = self._request("GET", path, params={"after": after}).json()
        records = page["records"]
        return MeasurementPage(records, records[-1]["id"] if records else after, page["newest"])

    def end_queue(self, queue: str) -> None:
        """End the jobs of a queue, and the tokens of its agents."""
        self._request("DELETE", f"/api/queues/{queue}")

    def _request(self, method: str, path: str, accept: tuple[int, ...] = (), **content: Any) -> requests.Response:
        from requests import ConnectionError, Timeout
        from requests.exceptions import SSLError

        pause = FIRST_PAUSE_S
        for left in range(TRIES - 1, -1, -1):
            try:
                response = self._session.request(method, self.url + path, timeout=TIMEOUT_S, **content)
            except SSLError as error:
                raise UsageError(f"no secure connection to {self.url}: {error}; {TLS_REMEDY}") from error
            except (ConnectionError, Timeout) as error:
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
        if response.status_code == 403:
            raise UsageError(f"the server {self.url} needs its admin's token; put it in OFA_TOKEN")
        if response.status_code == 409 and _field(response, "code") == "device-unavailable":
            raise DeviceUnavailable(_detail(response))
        if response.status_code >= 400 and response.status_code not in accept:
            raise UsageError(f"the server {self.url} refused: {_detail(response)}")
        return response


def _detail(response: requests.Response) -> str:
    return str(_field(response, "detail") or " ".join(response.text.split())[:300] or response.reason)


def _field(response: requests.Response, name: str) -> JSON:
    try:
        return response.json().get(name)
    except (ValueError, AttributeError):
        return None


def _short(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return type(getattr(cause, "reason", cause)).__name__
