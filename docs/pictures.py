"""Makes the pictures of the README and of the pages: a bundle's report and the dashboard, of a real run, in Chromium.

    python docs/pictures.py [WORKSPACE]

The workspace is one in which ``ofa-deploy quickstart`` ran; without one it runs here. Its path is in the report, so the
folder has a short name. The report is of an extraction after an audit. A simulated device is let in, so that the
dashboard has two.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
OFA = [sys.executable, "-m", "ofa_deploy"]
CHROMIUM = [
    "chromium",
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
LIMIT = 200_000
COLOURS = 256
STARTS_S, SETTLES_MS = 60, 8000
DEVICE = "nano-1"


def main() -> None:
    """Make both pictures."""
    workspace = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir()) / "ofa" / ".ofa"
    ofa(workspace, "quickstart")
    ofa(workspace, "audit", "--target", "local")
    smallest = min((workspace / "bundles" / "quickstart").glob("*/report.json"))
    budget, bundle = json.loads(smallest.read_text())["budget"]["max_ms"], workspace / "bundles" / "picture"
    ofa(workspace, "extract", "--target", "local", "--max-ms", str(budget), "-o", str(bundle))
    shoot((bundle / "report.html").resolve().as_uri(), "report", 1060, 1522)
    with subprocess.Popen(
        [*OFA, "--workspace", str(workspace), "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            dashboard(workspace, json.loads(document(server)))
        finally:
            server.terminate()


def dashboard(workspace: Path, serving: dict[str, str]) -> None:
    """Let a simulated device in, measure on it, and take the picture while its agent is there."""
    let_in = ofa(workspace, "device", "register", DEVICE, "--profile", "jetson_nano", "--simulated", "--json")
    state = tempfile.mkdtemp()
    words = ["--server", serving["url"], "--code", json.loads(let_in)["code"], "--state", state]
    with subprocess.Popen([*OFA, "--workspace", str(workspace), "agent", "run", *words]) as agent:
        try:
            ofa(workspace, "profile", "--target", DEVICE)
            shoot(serving["dashboard"], "dashboard", 1200, 800)
        finally:
            agent.terminate()
    shutil.rmtree(state)


def ofa(workspace: Path, *words: str) -> str:
    """Run a command; what it prints."""
    command = [*OFA, "--workspace", str(workspace), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def document(server: subprocess.Popen[str]) -> str:
    """The JSON that a server prints when it listens."""
    found = ""
    for line in server.stdout or ():
        found += line
        if re.match(r"\}", line) or (line.startswith("{") and line.rstrip().endswith("}")):
            return found
    raise SystemExit("the server did not start")


def shoot(address: str, name: str, width: int, height: int) -> None:
    """Take a picture of a page."""
    path = IMAGES / f"{name}.png"
    size = [f"--window-size={width},{height}", f"--virtual-time-budget={SETTLES_MS}", f"--screenshot={path}"]
    subprocess.run([*CHROMIUM, *size, address], check=True, timeout=STARTS_S, capture_output=True)
    with Image.open(path) as picture:
        fewer = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    fewer.save(path, optimize=True)
    if path.stat().st_size > LIMIT:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, and may have {LIMIT}: make the window smaller")


if __name__ == "__main__":
    main()
