"""The dashboard in a real browser."""

import re

import pytest
from dashboard_data import HOSTILE, beat, blocks, record, seed

from ofa_deploy.fleet.server import create_app
from ofa_deploy.fleet.serving import LocalServer
from ofa_deploy.store import Workspace

playwright = pytest.importorskip("playwright.sync_api", reason="the extra [test] is not installed")
expect = playwright.expect
TOKEN = "an-admin-token"
SMALL, NORMAL = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A server with a small fleet: its URL, the workspace, and a run that is under way."""
    with Workspace.open(tmp_path_factory.mktemp("fleet")) as workspace:
        run = seed(workspace)
        app = create_app(workspace.store, TOKEN, workspace.root / "blobs", workspace=workspace.root)
        server = LocalServer(app)
        yield server.url, workspace, run
        server.close()


@pytest.fixture
def visit(browser, fleet):
    """``visit(fragment)`` opens a page with the token; no page may ask another origin, or complain on its console."""
    url, contexts, problems, blocked = fleet[0], [], [], []

    def heard(message):
        if message.type == "error":  # of a report's script, Chromium says that it did not run
            (blocked if message.text.startswith("Blocked script execution in 'blob:") else problems).append(
                message.text
            )

    def opened(fragment="", token=TOKEN, **options):
        context = browser.new_context(**{"viewport": NORMAL, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith((url, "blob:")) else problems.append(request.url)
        )
        page.goto(f"{url}/#token={token}" if token else url)
        if fragment:
            page.goto(f"{url}/#{fragment}")
        return page

    opened.problems, opened.blocked = problems, blocked
    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def row(page, text):
    return page.locator("tbody tr").filter(has_text=text).first


def test_devices_are_shown_and_the_token_leaves_the_address_bar(visit, fleet):
    page = visit()
    expect(row(page, "jetson-1")).to_contain_text("online")
    expect(row(page, "jetson-1")).to_contain_text("41.5 → 63.0 °C")
    expect(row(page, "jetson-1")).to_contain_text("40 running")
    expect(row(page, "sim-1")).to_contain_text("SIMULATED")
    expect(row(page, "sim-1")).to_contain_text("25 waiting")
    assert page.url == f"{fleet[0]}/"
    page.reload()  # the tab remembers the token
    expect(row(page, "jetson-1")).to_be_visible()


def test_progress_moves_by_itself_and_the_row_is_not_made_anew(visit, fleet):
    _, workspace, run = fleet
    beat(workspace.store, run, 3)
    page = visit()
    bar = row(page, "jetson-1").locator("progress")
    expect(bar).to_have_attribute("value", "0.25")
    bar.evaluate("element => element.seen = true")
    beat(workspace.store, run, 9)
    expect(bar).to_have_attribute("value", "0.75", timeout=15_000)
    expect(row(page, "jetson-1")).to_contain_text("round 9 of 12")
    assert bar.evaluate("element => element.seen")


def test_a_heat_map_shows_the_right_numbers(visit):
    page = visit("device/jetson-1")
    middle = page.get_by_role("table", name="MBConv blocks")
    expect(middle.locator("tbody tr")).to_have_count(5)
    cells = middle.locator("tbody tr").filter(has_text="40 → 40").locator("td").all_inner_texts()
    measured = [ms for key, ms in blocks() if "-c40-" in key and "-o40-" in key]
    assert [float(text) for text in cells] == [pytest.approx(ms, rel=0.01) for ms in measured]
    expect(page.get_by_role("table", name="Stem, head")).to_contain_text("2.50⚑")
    shades = middle.locator("td").evaluate_all(
        "all => all.map(cell => parseFloat(cell.style.getPropertyValue('--heat')))"
    )
    assert max(shades) == 100
    expect(page.get_by_role("table", name="Whole networks")).to_contain_text("61.3")
    assert page.get_by_text("SIMULATED").count() == 0


def test_a_heat_map_of_universal_bottlenecks_has_both_kernels(visit, fleet):
    forms = {"-k0": 1.5, "-k5": 2.5, "-start3-k0": 3.5, "-start3-k5": 4.5}
    keys = {f"uib-14x14-c16-m48-o16{form}-s1-relu-skip": ms for form, ms in forms.items()}
    fleet[1].store.add_measurements([record("sim-1", key, ms, simulated=True) for key, ms in keys.items()])
    table = visit("device/sim-1").get_by_role("table", name="Universal inverted bottlenecks")
    expect(table.locator("tbody tr")).to_have_count(1)
    heads = [line.locator("th").all_inner_texts() for line in table.locator("thead tr").all()]
    assert heads[1:3] == [["first kernel", "none", "k 3"], ["kernel", "none", "k 5", "none", "k 5"]]
    assert [float(text) for text in table.locator("td").all_inner_texts()] == list(forms.values())


def test_a_simulated_table_says_so(visit):
    page = visit("device/sim-1")
    expect(page.locator(".banner")).to_contain_text("SIMULATED")
    expect(page.locator(".legend")).to_contain_text("SIMULATED")


def test_what_a_device_says_of_itself_stays_text(visit):
    page = visit()
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    expect(page.locator(".facts dt").filter(has_text=HOSTILE)).to_be_visible()
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_report_opens_in_a_frame_where_no_script_runs(visit):
    page = visit()
    page.locator("a[href='#report/bundles/jetson-1']").click()
    heading = page.frame_locator("iframe.report").locator("h1")
    expect(heading).to_have_text("The report")
    expect(heading).to_have_css("color", "rgb(1, 2, 3)")  # its own style holds
    assert page.evaluate("window.hacked") is None
    assert len(visit.blocked) == 1


def test_a_wrong_token_is_told_and_another_can_be_typed(visit):
    page = visit(token="wrong")
    expect(page.get_by_role("alert")).to_contain_text("refuses this token")
    assert page.evaluate("sessionStorage.length") == 0
    page.get_by_label("Admin token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    expect(row(page, "jetson-1")).to_be_visible()
    assert all("401" in text for text in visit.problems)  # Chromium notes the refused request
    visit.problems.clear()


@pytest.mark.parametrize("fragment", ["", "device/jetson-1", "device/sim-1", "report/audits/jetson-1"])
def test_a_phone_scrolls_tables_in_their_own_boxes_only(visit, fragment):
    page = visit(fragment, viewport=SMALL)
    page.locator("main h1").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == SMALL["width"]


def test_dark_mode(visit):
    colours = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
    assert light > 600
    assert dark < 150


def test_the_page_says_when_the_server_is_away_and_when_it_is_back(visit):
    page = visit()
    expect(row(page, "jetson-1")).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())
    expect(page.get_by_role("status")).to_contain_text("does not answer", timeout=15_000)
    expect(row(page, "jetson-1")).to_be_visible()
    page.unroute("**/api/**")
    expect(page.get_by_role("status")).to_contain_text("is back", timeout=15_000)
    visit.problems.clear()  # the failed requests


def test_the_documentation_needs_no_other_server(visit, fleet):
    page = visit()
    page.goto(f"{fleet[0]}/docs")
    expect(page.locator("#api")).to_contain_text("/api/overview")
