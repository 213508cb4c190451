"""The browser agent in a real browser, with the real ONNX Runtime Web."""

import json
import threading

import pytest

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol, resolve_target
from ofa_deploy.fleet.presence import announced
from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.fleet.tokens import admin_token
from ofa_deploy.fleet.web_assets import assets_folder, install
from ofa_deploy.store import Workspace

playwright = pytest.importorskip("playwright.sync_api", reason="the extra [test] is not installed")
expect = playwright.expect
WAIT_MS = 60_000
SHORT = ("--cap-s", "20", "--se", "0.3")


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """ONNX Runtime Web, installed once."""
    folder = tmp_path_factory.mktemp("assets")
    try:
        install(folder)
    except OfaDeployError as error:
        pytest.skip(f"ONNX Runtime Web cannot be had here: {error}")
    return assets_folder(folder)


@pytest.fixture
def served(tmp_path):
    """A server whose commands, run in ``tmp_path``, find it: its URL and the workspace."""
    with Workspace.open(tmp_path / ".ofa") as workspace:
        app = create_app(workspace.store, admin_token(workspace.root), tmp_path / "blobs", workspace=workspace.root)
        server = LocalServer(app)
        with announced(workspace.root, server.url):
            yield server.url, workspace
        server.close()


@pytest.fixture
def with_assets(served, assets):
    assets_folder(served[1].root).symlink_to(assets)


@pytest.fixture
def visit(browser, served):
    """``visit(link)``: the page in a browser of its own; it may ask no other server, and has no error of its own."""
    contexts, problems = [], []

    def open_page(link):
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(served[0]) or problems.append(asked.url))
        page.goto(link)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def link(served, ofa_deploy, tmp_path):
    """What ``device register phone-1 --profile browser`` prints."""
    done = ofa_deploy("device", "register", "phone-1", "--profile", "browser", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["link"] == f"{served[0]}/agent#{answer['code']}"
    return answer["link"]


@pytest.fixture
def page(visit, link):
    """The page of ``phone-1``, which is let in."""
    opened = visit(link)
    expect(opened.locator("#phase")).to_have_text("Waiting for work")
    return opened


def test_a_space_is_profiled_in_the_browser_and_a_subnet_extracted_for_it(
    with_assets, served, page, ofa_deploy, tmp_path
):
    assert page.url == f"{served[0]}/agent"  # the code is gone from the address bar
    assert page.evaluate("crossOriginIsolated")
    words = ["--target", "phone-1", "--space", "tiny_16", "--json"]
    done = ofa_deploy("profile", *words, "--networks", "3", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = served[1].store.measurements_after("phone-1", 0, 1000)
    assert {row["condition"]["runtime"] for row in rows} == {"ort-web-wasm"}
    assert {row["kind"] for row in rows} == {"op", "network"}
    assert all(row["facts"]["cross_origin_isolated"] and row["facts"]["timer_resolution_us"] > 0 for row in rows)
    fitting = [*words, "--random-weights", "--max-ms", "1000", "--no-profile"]
    done = ofa_deploy("extract", *fitting, *SHORT, "-o", str(tmp_path / "bundle"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["latency"]["fits"]
    assert (tmp_path / "bundle" / "model.onnx").is_file()


class Job:
    """Measures on ``phone-1`` in a thread, as a command would."""

    def __init__(self, workspace, items):
        self.records, self.error = [], None
        protocol = Protocol(rounds_min=20, rounds_max=20, timings=6, burst_ms=20, cap_s=60)
        self._thread = threading.Thread(target=self._measure, args=(workspace, items, protocol))
        self._thread.start()

    def _measure(self, workspace, items, protocol):
        try:
            with Fleet.open(workspace) as fleet:
                self.records = fleet.measure(resolve_target("phone-1", workspace), items, protocol)
        except OfaDeployError as error:
            self.error = str(error)

    def wait(self, page):
        while self._thread.is_alive():
            page.wait_for_timeout(100)  # not ``join``: it is the driver's thread too
        return self.records


def test_a_reloaded_page_goes_on_with_the_same_run(with_assets, served, page, make_items):
    workspace = served[1]
    job = Job(workspace, make_items(3))
    expect(page.locator("#detail")).to_contain_text("round 1", timeout=WAIT_MS)
    first = workspace.store.overview.running()[0].run
    page.reload()
    assert {record.run for record in job.wait(page)} == {first}, job.error
    expect(page.locator("#phase")).to_have_text("Waiting for work")


def test_a_result_is_kept_until_the_server_takes_it(with_assets, served, page, make_items):
    page.route("**/result", lambda route: route.abort())
    job = Job(served[1], make_items(2))
    expect(page.locator("#away")).to_contain_text("does not answer", timeout=WAIT_MS)
    page.unroute("**/result")
    page.reload()
    assert len(job.wait(page)) == 2, job.error


def test_stopping_hands_the_work_back_and_starting_takes_it_again(with_assets, served, page, make_items):
    store = served[1].store
    job = Job(served[1], make_items(2))
    expect(page.locator("#detail")).to_contain_text("round 1", timeout=WAIT_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#phase")).to_have_text("Stopped")
    page.wait_for_timeout(300)
    assert store.overview.running() == []
    page.get_by_role("button", name="Start").click()
    assert len(job.wait(page)) == 2, job.error


def test_a_broken_model_costs_that_model_and_the_rest_is_measured(with_assets, served, page, make_items):
    items = make_items(3)
    broken = MeasureItem(items[0].network, b"garbage", None, "op")
    job = Job(served[1], [broken, *items[1:]])
    job.wait(page)
    assert "1 of 3 items could not be measured on phone-1" in job.error
    assert "malformed" in job.error
    assert len(served[1].store.measurements_after("phone-1", 0, 10)) == 2


def test_threads_that_the_browser_does_not_have_are_refused(with_assets, served, page, make_items):
    many = resolve_target("browser").model_copy(update={"name": "phone-1", "threads": 999})
    with Fleet.open(served[1]) as fleet:
        fleet.client.register("phone-1", many.model_dump(mode="json"))
    job = Job(served[1], make_items(2))
    job.wait(page)
    assert "unsupported-op: 999 threads are asked for" in job.error


def test_a_wrong_code_is_told_with_the_remedy(served, visit):
    page = visit(f"{served[0]}/agent#{'x' * 22}")
    expect(page.get_by_role("alert")).to_contain_text("Not let in")
    expect(page.get_by_role("alert")).to_contain_text("ofa-deploy device register NAME --profile browser")


def test_a_code_that_another_browser_has_used(page, visit, link):
    expect(visit(link).get_by_role("alert")).to_contain_text("used")


def test_a_second_tab_waits_for_the_first(page):
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.locator("#detail")).to_contain_text("Another tab")
    page.close()
    expect(second.locator("#phase")).to_have_text("Waiting for work")


def test_without_the_runtime_the_page_says_what_to_run(page):
    expect(page.locator("#notices")).to_contain_text("ofa-deploy agent web-assets")


def test_a_server_that_is_away_is_told_and_waited_for(page):
    page.route("**/api/**", lambda route: route.abort())
    page.reload()
    expect(page.locator("#away")).to_contain_text("does not answer")
    page.unroute("**/api/**")
    expect(page.locator("#away")).to_be_hidden(timeout=15_000)
