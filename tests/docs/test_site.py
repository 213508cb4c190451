"""The documentation's site: it builds without a warning, fetches nothing, and every page is two clicks away.

The reference names every command with its options, and every key of a recipe, a profile and a pipeline.
"""

import html
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import ofa_deploy
from ofa_deploy.blocks import BLOCKS
from ofa_deploy.cli import cli
from ofa_deploy.config import SpaceDocument, TargetProfile, TrainRecipe
from ofa_deploy.differentiable import DartsRecipe
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.pipeline.document import PipelineDocument
from ofa_deploy.pipeline.question import Question

pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))
import reference_hook  # noqa: E402

DOCUMENTS = {
    "recipes": [TrainRecipe, SpaceDocument, DartsRecipe],
    "profiles": [TargetProfile],
    "pipelines": [PipelineDocument, Protocol, Question],
}
README_LINES, README_BYTES = 250, 14_000
PICTURE_BYTES = 200_000


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page: Path) -> str:
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def commands(command: click.Command, path: str) -> dict[str, click.Command]:
    """Every command below, by what is typed."""
    if not isinstance(command, click.Group):
        return {path: command}
    return {k: c for name, child in command.commands.items() for k, c in commands(child, f"{path} {name}").items()}


COMMANDS = commands(cli, "ofa-deploy")


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text()
    parts = re.split(r'<h\d id="', page)
    sections = {part.split('"')[0]: html.unescape(re.sub(r"<[^>]+>", "", part)) for part in parts}
    for name, command in COMMANDS.items():
        shown = sections[name.replace(" ", "-")]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in shown, f"{name} {option.opts[0]}"
    assert len(COMMANDS) > 40


def test_the_overview_names_every_command() -> None:
    overview = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert [name for name in COMMANDS if f"`{name}`" not in overview] == []


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_key_is_in_the_reference_and_explained(site: Path, page: str) -> None:
    shown = (site / "reference" / f"{page}.html").read_text()
    keys = 0
    for root in DOCUMENTS[page]:
        for where, document in reference_hook.documents(root):
            meanings = reference_hook.meanings(document)
            for key in document.model_fields:
                assert f"<td><code>{key}</code></td>" in shown, f"{where}.{key}"
                assert meanings.get(key), f"{document.__name__}.{key} has no meaning"
                keys += 1
    assert keys > 10


def test_every_kind_of_block_is_in_the_reference_and_explained(site: Path) -> None:
    shown = (site / "reference" / "recipes.html").read_text()
    for kind in BLOCKS:
        assert re.search(rf"<td><code>{kind}</code></td>\s*<td>\w", shown), kind


def test_every_function_is_in_the_reference(site: Path) -> None:
    shown = (site / "reference" / "python.html").read_text()
    assert [name for name in ofa_deploy.__all__ if not re.search(rf'id="ofa_deploy\.api\.\w+\.{name}"', shown)] == []
    assert len(ofa_deploy.__all__) > 5


def test_a_key_of_every_kind_is_put_into_words() -> None:
    table = reference_hook.table(TrainRecipe)
    assert "| `epochs` | integer > 0 | required | passes over the training images. |" in table
    assert '| `schedule` | `sandwich`, `progressive` | `"sandwich"` |' in table
    assert "| `momentum` | number ≥ 0, ≤ 1 | `0.9` |" in table


def pages_of(nav: list) -> list[str]:
    """The pages that a navigation lists."""
    found = []
    for entry in nav:
        value = next(iter(entry.values()))
        found += pages_of(value) if isinstance(value, list) else [value]
    return found


def test_the_navigation_lists_every_page() -> None:
    listed = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    sources = [path for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").rglob(kind)]
    there = {str(path.relative_to(ROOT / "docs").with_suffix(".md")) for path in sources}
    assert set(listed) == there
    assert len(listed) == len(there)


def test_every_page_is_two_clicks_from_the_start(site: Path) -> None:
    def links(page: Path) -> set[Path]:
        found = re.findall(r'href="([^"#:]+\.html)', page.read_text())
        return {(page.parent / link).resolve() for link in found}

    start = site / "index.html"
    once = links(start)
    twice = {page for first in once if first.exists() for page in links(first)}
    pages = {path.resolve() for path in site.rglob("*.html") if path.name != "404.html"}
    assert pages - once - twice - {start.resolve()} == set()
    assert len(pages) > 25


def test_no_page_shows_what_is_not_for_readers(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = text_of(page)
        assert "not run by the tests" not in text, page.name
        assert "Sentinel" not in text, page.name
        assert "<!-- keys" not in page.read_text(), page.name


def test_links_of_the_site_resolve(site: Path) -> None:
    followed = 0
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
            path = link.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path) and page.name != "404.html":
                assert (page.parent / path).exists(), f"{page.name}: {link}"
                followed += 1
    assert followed > 100


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|source|iframe)[^>]*\ssrc="([^"]+)"', text)
        fetched += [tag for tag in re.findall(r"<link[^>]+>", text) if 'rel="canonical"' not in tag]
        assert [one for one in fetched if re.search(r'(^|")(https?:)?//', one)] == [], page.name


def test_the_first_paragraph_says_what_the_reader_can_do() -> None:
    pages = sorted((ROOT / "docs").rglob("*.md"))
    assert len(pages) > 20
    for page in pages:
        title, paragraph = page.read_text().split("\n\n")[:2]
        assert title.startswith("# "), page
        assert re.match(r"(At the end|This page|These pages|Here you|After this)", paragraph), page


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= README_LINES
    assert readme.stat().st_size <= README_BYTES
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme.read_text())
    assert len(pictures) == 2
    assert all((ROOT / picture).stat().st_size <= PICTURE_BYTES for picture in pictures)


def test_ci_runs_the_commands_that_install_and_try() -> None:
    """What the README has its reader type in a shell first is what ``.ci/run`` types."""
    shell = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    run = (ROOT / ".ci" / "run").read_text().replace("pip install -q ", "pip install ")
    first = [
        line.split("#")[0].strip()
        for block in (*shell[:2], shell[-1].partition("mkdocs")[0])
        for line in block.splitlines()
    ]
    assert "ofa-deploy quickstart" in first
    assert [line for line in first if line not in run] == []
