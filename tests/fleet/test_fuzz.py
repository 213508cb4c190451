"""The API from its own description, with data that fits it and data that does not: it refuses, and never breaks."""

import pytest
from hypothesis import HealthCheck, settings

from ofa_deploy.fleet import create_app
from ofa_deploy.fleet.tokens import digest
from ofa_deploy.store import Store, utc_now

schemathesis = pytest.importorskip("schemathesis")
positive_data_acceptance = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance

ADMIN, SECRET = "the-admins-token", "s" * 43
# meaning goes beyond what the description can say: a model's hash, an item's sentinel, a profile's fields
BEYOND = [positive_data_acceptance]
FUZZ = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    store = Store(f"sqlite:///{folder / 'ofa.db'}")
    store.access.register("phone", {}, digest("code"), utc_now(3600))
    store.access.enrol(digest("code"), digest(SECRET), {})
    app = create_app(store, ADMIN, folder / "blobs")
    app.state.store = store
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    store.close()


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@FUZZ
def test_an_admin_breaks_nothing(case):
    case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN}"}, excluded_checks=BEYOND)


@schema.parametrize()
@FUZZ
def test_a_device_breaks_nothing(case):
    if isinstance(case.body, dict):
        case.body.pop("wait_s", None)  # a wait for work is not what is tested
    case.call_and_validate(headers={"Authorization": f"Bearer phone.{SECRET}"}, excluded_checks=BEYOND)


@schema.parametrize()
@FUZZ
def test_nobody_gets_in_without_a_token(case):
    answer = case.call(headers={})
    assert answer.status_code in ((401,) if case.path != "/api/enroll" else (400, 401, 405, 413, 415, 422))
    assert "Traceback" not in answer.text


def test_nothing_was_stored_by_them_but_devices(described):
    """Runs last: a fuzzer has no run, and no models."""
    store = described.app.state.store
    assert all(store.newest_measurement(device["name"]) == 0 for device in store.devices())
    assert store.jobs.waiting() == set()
