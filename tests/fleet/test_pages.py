"""The dashboard's JSON, the metrics and the log, as a client that is no browser sees them."""

import io
import json
import logging
import time
from dataclasses import replace

import pytest
import requests
from dashboard_data import HOSTILE, add_job, beat, blocks, let_in, record, row, seed
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text

from ofa_deploy.fleet.heatmap import heat_map
from ofa_deploy.fleet.logs import write_logs
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.service import SEEN_S
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.fleet.status import device_status
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.store import MeasuredDevice, utc_now

TOKEN = "the-admins-secret"


@pytest.fixture
def get(workspace):
    """``get(path)``: an answer of the server of a small fleet; ``get.run`` is a run that is under way."""
    run = seed(workspace)
    running = LocalServer(create_app(workspace.store, TOKEN, workspace.root / "blobs", workspace=workspace.root))
    session = requests.Session()

    def ask(path, token=TOKEN, method="GET", **more):
        return session.request(
            method, running.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30, **more
        )

    ask.run = run
    yield ask
    session.close()
    running.close()


def device(get, name):
    return next(one for one in get("/api/overview").json()["devices"] if one["name"] == name)


def test_the_overview_tells_of_devices_queues_runs_and_jobs(get):
    jetson, sim, liar = (device(get, name) for name in ("jetson-1", "sim-1", HOSTILE))
    assert (jetson["simulated"], sim["simulated"], jetson["online"]) == (False, True, True)
    assert jetson["temperatures"] == {"": [41.5, 63.0]}
    assert (jetson["queue"]["running"], sim["queue"]["waiting"], liar["queue"]) == (40, 25, {})
    assert jetson["run"]["progress"]["round"] == 3
    assert (jetson["run"]["items"], sim["run"]) == (40, None)
    jobs = get("/api/overview").json()["jobs"]
    assert {job["id"][0]: job["items"]["waiting"] + job["items"]["running"] for job in jobs} == {"a": 40, "b": 25}
    assert get("/api/overview").json()["active_jobs"] == 2


def test_one_devices_words_hide_no_other_device(get, workspace):
    before = {one["name"] for one in get("/api/overview").json()["devices"]}
    facts = {
        "hot": {"temperature_c": 10**400},
        "endless": {"temperature_c": [1e308 * 10, -1.0]},
        "nobody": {"a": "\ud800"},
    }
    for name in facts:
        workspace.store.touch_device(name)
    with workspace.store._engine.begin() as connection:  # as versions stored it that took whatever came
        for name, said in facts.items():
            row = {"name": name, "facts": json.dumps(said)}
            connection.execute(text("UPDATE devices SET facts = :facts WHERE name = :name"), row)
    found = {one["name"]: one for one in get("/api/overview").json()["devices"]}
    assert found.keys() == before | {"hot", "endless"}
    assert (found["hot"]["temperatures"], found["endless"]["temperatures"]) == ({}, {"": [-1.0]})
    assert found["hot"]["facts"]["temperature_c"].startswith("1000")
    metrics = get("/metrics")
    assert metrics.status_code == 200
    assert 'ofa_device_seen_seconds{device="hot"}' in metrics.text
    assert 'ofa_device_seen_seconds{device="nobody"}' not in metrics.text


def test_items_are_counted_as_what_became_of_them(get, workspace):
    done = {f"{'a' * 32}.{i}": record("jetson-1", f"k{i}", 1.0) for i in range(39)}
    workspace.store.runs.finish(
        get.run, "digest", done, {f"{'a' * 32}.39": {"reason": "failed", "message": "no"}}, None
    )
    workspace.store.jobs.cancel("b" * 32)
    found = {job["id"][0]: job["items"] for job in get("/api/overview").json()["jobs"]}
    assert (found["a"]["done"], found["a"]["failed"], found["b"]["cancelled"]) == (39, 1, 25)
    assert device(get, "jetson-1")["queue"] == {}


def test_the_overview_asks_the_database_the_same_few_questions_however_large_the_fleet(get, workspace):
    asked = []
    engine = workspace.store.overview._engine

    @event.listens_for(engine, "before_cursor_execute")
    def count(_, __, statement, *more):
        asked.append(statement)

    def questions():
        asked.clear()
        assert get("/api/overview").ok
        return len(asked)

    few = min(questions() for _ in range(4))  # once a second the server itself asks whether there is work
    for i in range(20):
        workspace.store.touch_device(f"more-{i}", {})
        add_job(workspace.store, f"{i:032x}", f"more-{i}", 5)
    assert min(questions() for _ in range(4)) == few
    assert len(get("/api/overview").json()["devices"]) == 23
    event.remove(engine, "before_cursor_execute", count)


def test_a_device_that_says_too_much_is_cut_short():
    facts = {f"fact{i}" * 99: "x" * 9999 for i in range(500)} | {"temperature_gpu_c": 70, "temperature_c": "hot"}
    known = MeasuredDevice("d", None, facts, utc_now(), utc_now(-2 * SEEN_S), None, 0, {}, None)
    shown = device_status(known)
    assert len(json.dumps(vars(shown))) < 30_000
    assert not shown.online
    never = device_status(replace(known, facts={}, seen_at=None, profile={"name": "jetson_nano"}))
    assert (never.online, never.seen_s, never.profile) == (False, None, "jetson_nano")
    few = {"temperature_gpu_c": 70, "temperature_c": "hot"}
    assert device_status(replace(known, facts=few, seen_at=utc_now())).temperatures == {"gpu": [70.0]}


def test_a_table_holds_the_newest_row_of_every_block(get, workspace):
    key, old = next(iter(blocks()))
    workspace.store.add_measurements([record("jetson-1", key, 2 * old)])
    table = get("/api/devices/jetson-1/table").json()
    cells = [cell for part in table["blocks"]["tables"] for cell in part["cells"]]
    assert {cell["key"]: cell["p50"] for cell in cells} == {**dict(blocks()), key: 2 * old}
    assert [network["p50"] for network in table["networks"]] == [61.25]
    assert table["networks"][0]["arch"]["resolution"] == 224
    assert "timings" not in cells[0]


def test_conditions_are_shown_apart(get, workspace):
    key, ms = next(iter(blocks()))
    other = {**record("jetson-1", key, ms)["condition"], "power_mode": "5W"}
    workspace.store.add_measurements([record("jetson-1", key, 3 * ms, condition=other)])
    table = get("/api/devices/jetson-1/table").json()
    assert [c["condition"]["power_mode"] for c in table["conditions"]] == ["5W", "10W"]
    older = get(f"/api/devices/jetson-1/table?condition={table['conditions'][1]['hash']}").json()
    assert older["condition"]["condition"]["power_mode"] == "10W"
    assert get(f"/api/devices/jetson-1/table?condition={'0' * 64}").status_code == 404
    assert get("/api/devices/nobody/table").status_code == 404
    assert get("/api/devices/a%00b/table").status_code == 422


def test_a_heat_map_puts_every_block_where_its_channels_resolution_kernel_and_expansion_say():
    middle, ends = heat_map(row(key, ms) for key, ms in blocks()).to_json()["tables"]
    assert [(line["cin"], line["cout"]) for line in middle["lines"]][:2] == [(16, 24), (24, 24)]
    assert len(middle["columns"]) == 2 * 3 * 3
    assert len({(cell["line"], cell["column"]) for cell in middle["cells"]}) == len(middle["cells"]) == 5 * 18
    cell = next(cell for cell in middle["cells"] if cell["key"] == "mbconv-28x28-c40-m160-o40-k5-s1-relu-se40-skip")
    assert middle["columns"][cell["column"]] == {"resolution": 224, "start": None, "kernel": 5, "expand": 4.0}
    assert [column["resolution"] for column in ends["columns"]] == [None, 160, 224]


def test_a_heat_map_has_a_table_for_each_kind_of_block():
    keys = [f"uib-14x14-c16-m48-o16{start}-k{kernel}-s1-relu-skip" for start in ("", "-start3") for kernel in (0, 5)]
    own, other, ends = heat_map(row(key) for key in [key for key, _ in blocks()] + keys).to_json()["tables"]
    assert {line["kind"] for line in own["lines"]} == {"mbconv"}
    assert [line["kind"] for line in other["lines"]] == ["uib"]
    assert [(column["start"], column["kernel"]) for column in other["columns"]] == [(0, 0), (0, 5), (3, 0), (3, 5)]
    assert {line["kind"] for line in ends["lines"]} == {"stem", "classifier"}


@pytest.mark.parametrize("name", ["resnet_28", "mnv4_hybrid_28"])
def test_a_heat_map_has_a_place_for_every_block_of_any_kind(name):
    ops = PopulationCodec(load_space(name)).ops
    found = heat_map(row(op.key, spec=op.to_json()) for op in ops).to_json()
    assert found["others"] == []
    kinds = [{line["kind"] for line in table["lines"]} for table in found["tables"]]
    assert {"stem", "head", "classifier"} in kinds
    for table in found["tables"]:
        places = {(cell["line"], cell["column"]) for cell in table["cells"]}
        assert len(places) == len(table["cells"])
    own = next(table for table in found["tables"] if table["lines"][0]["kind"] in ("basic", "mqa"))
    assert {0.5, 1.0} <= {column["expand"] for column in own["columns"]}, "ratios of the output channels"


def test_a_heat_map_tells_sizes_apart_where_it_cannot_tell_the_resolution():
    keys = [f"mbconv-{size}x{size}-c16-m48-o16-k3-s1-relu-skip" for size in (7, 9)]
    found = heat_map(row(key) for key in [*keys, "unknown-7x7"]).to_json()
    (table,) = found["tables"]
    assert [line["at"] for line in table["lines"]] == [7, 9]
    assert [row["key"] for row in found["others"]] == ["unknown-7x7"]


def test_reports_are_listed_and_read_and_nothing_else_is(get, workspace):
    (workspace.root / "secret.html").write_text("secret")
    (workspace.root / "audits" / "link").symlink_to(workspace.root)
    (workspace.root / "audits" / "out").mkdir()
    (workspace.root / "audits" / "out" / "audit.html").symlink_to(workspace.root / "secret.html")
    listed = get("/api/reports").json()
    assert {(one["kind"], one["path"], one["verdict"]) for one in listed} == {
        ("audits", "jetson-1", "the audit fits"),
        ("bundles", "jetson-1", "the report fits"),
    }
    page = get("/api/reports/audits/jetson-1")
    assert "The audit" in page.text
    assert "sandbox" in page.headers["Content-Security-Policy"]
    for path in (
        "audits/..%2f..",
        "audits/out",
        "audits/link",
        "tables/x",
        "audits/%00",
        "audits/jetson-1/",
    ):
        assert get(f"/api/reports/{path}").status_code == 404, path


def test_a_report_that_is_damaged_is_listed_all_the_same(get, workspace):
    (workspace.root / "audits" / "jetson-1" / "audit.json").write_text('["no object"')
    audit = next(one for one in get("/api/reports").json() if one["kind"] == "audits")
    assert audit["verdict"] is None


def test_the_page_is_public_and_holds_no_data(get):
    for path in ("/", "/docs", "/healthz", "/openapi.json", "/dashboard/dashboard.js", "/dashboard/swagger-ui.css"):
        answer = get(path, token="wrong")
        assert answer.status_code == 200, path
        assert "jetson-1" not in answer.text
        assert TOKEN not in answer.text
    policy = get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "script-src" not in policy  # so that default-src holds for scripts: none is inline
    assert get("/").headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/dashboard/..%2fserver.py", "/dashboard/server.py", "/dashboard/x/y"):
        assert get(path).status_code == 404, path
    assert get("/", token="wrong", method="POST").status_code == 405


def test_metrics_can_be_read_by_prometheus(get, workspace):
    get("/api/overview", token="wrong")
    get("/api/runs/x/result", let_in(workspace.store, "jetson-1"), "POST", json={})
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(get("/metrics").text)
        for sample in family.samples
    }
    assert samples["ofa_devices", ("online", "true"), ("simulated", "true")] == 1
    assert samples["ofa_devices", ("online", "true"), ("simulated", "false")] == 2
    assert samples["ofa_items", ("state", "running")] == 40
    assert samples["ofa_items", ("state", "waiting")] == 25
    assert samples["ofa_runs_total", ("outcome", "done")] == 0
    assert samples[("ofa_runs_running",)] == 1
    assert samples["ofa_results_total", ("outcome", "stale")] == 0
    assert samples["ofa_http_requests_total", ("method", "GET"), ("route", "none"), ("status", "401")] == 1
    assert samples["ofa_http_request_seconds_count", ("route", "/api/runs/{run}/result")] == 1
    assert ("ofa_device_seen_seconds", ("device", HOSTILE)) in samples


def test_the_log_tells_what_happened_and_never_a_token(get, workspace):
    jetson, sim = (let_in(workspace.store, name) for name in ("jetson-1", "sim-1"))
    stream = io.StringIO()
    handler = write_logs("json", stream)
    try:
        get("/api/overview", token="s3cret-guess")
        get(f"/api/runs/{get.run}/progress", jetson, "POST", json={"phase": "rounds"})
        get("/api/runs/gone/progress", jetson, "POST", json={"phase": "rounds"})
        claimed = get("/api/claim", sim, "POST", json={"facts": {}}).json()
        end = time.monotonic() + 20
        while "claimed" not in stream.getvalue() and time.monotonic() < end:
            time.sleep(0.01)  # the line is written when the answer is on its way
    finally:
        for name in ("ofa_deploy", "uvicorn.error"):
            logging.getLogger(name).removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("status")) for line in lines] == [
        ("refused", 401),
        ("stale", 409),
        ("claimed", 200),
    ]
    assert (lines[1]["run"], lines[1]["route"], lines[1]["level"]) == ("gone", "/api/runs/{run}/progress", "warning")
    assert (lines[2]["device"], lines[2]["run"], lines[2]["job"]) == ("sim-1", claimed["run"], "b" * 32)
    assert not any(token in stream.getvalue() for token in (TOKEN, jetson, sim))
    assert "s3cret" not in stream.getvalue()


def test_a_lease_that_expires_is_logged(workspace):
    stream = io.StringIO()
    handler = write_logs("text", stream)
    try:
        add_job(workspace.store, "c" * 32, "d-1", 1)
        run = workspace.store.runs.claim("d-1", "", -1).run
        assert workspace.store.runs.claim("d-1", "", 60).attempt == 2
    finally:
        for name in ("ofa_deploy", "uvicorn.error"):
            logging.getLogger(name).removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    assert f"expired  device=d-1  run={run}" in line


def test_text_of_others_cannot_forge_a_line_of_the_log(workspace):
    stream = io.StringIO()
    handler = write_logs("text", stream)
    try:
        logging.getLogger("ofa_deploy.test").info("claimed", extra={"device": "a\n2025  revoked  device=b"})
    finally:
        for name in ("ofa_deploy", "uvicorn.error"):
            logging.getLogger(name).removeHandler(handler)
    assert len(stream.getvalue().splitlines()) == 1


def test_progress_moves(get, workspace):
    beat(workspace.store, get.run, 7)
    assert device(get, "jetson-1")["run"]["progress"]["round"] == 7
