"""The API from its own description, with data that fits it and data that does not: it refuses, and never breaks."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.tokens import digest
from ofa_deploy.store import Store, utc_now

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

ADMIN, SECRET = "the-admins-token", "s" * 43
FUZZ = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The API's description, and the store behind it."""
    folder = tmp_path_factory.mktemp("fuzz")
    store = Store(f"sqlite:///{folder / 'ofa.db'}")
    store.access.register("phone", {}, digest("code"), utc_now(3600))
    store.access.enrol(digest("code"), digest(SECRET), {})
    app = create_app(store, ADMIN, folder / "blobs")
    app.state.bells.close()  # how long agents wait is not what is tested
    yield schemathesis.openapi.from_asgi("/openapi.json", app), store
    store.close()


def fuzz(schema, mode, check):
    for found in schema.get_all_operations():
        operation = found.ok()

        @FUZZ
        @given(operation.as_strategy(generation_mode=mode))
        def one(case):
            check(case)

        with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
            one()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("token", [ADMIN, f"phone.{SECRET}"], ids=["admin", "device"])
def test_nobody_breaks_anything(described, mode, token):
    """All of schemathesis's checks but one: what a model's hash or a profile's fields mean, no description can say."""

    def check(case):
        headers = {"Authorization": f"Bearer {token}"}
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    schema, store = described
    fuzz(schema, mode, check)
    devices = [device.name for device in store.devices()]
    assert "phone" in devices
    assert all(store.newest_measurement(name) == 0 for name in devices), "nobody had a run"
    assert store.jobs.waiting() == set(), "nobody had a model"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_nobody_gets_in_without_a_token(described, mode):
    def check(case):
        answer = case.call()
        if case.path == "/healthz":  # tells nobody's data
            return
        assert 400 <= answer.status_code < 500
        assert answer.status_code == 401 or case.path == "/api/enroll"
        assert "Traceback" not in answer.text

    fuzz(described[0], mode, check)
