"""A real headless Chromium for the tests of pages."""

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    """Skips where playwright or Chromium are missing."""
    reason = "the extra [test] is not installed"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if (chromium := next(found, None)) is None:
        pytest.skip("no Chromium on this machine")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own sandbox refuses to run as root
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()
