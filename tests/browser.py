"""Debian's Chromium through playwright; tests that import this are skipped where there is none."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium (Debian: apt-get install chromium)", allow_module_level=True)
pytest.importorskip("playwright", reason="the page is tried through playwright")

from playwright.sync_api import expect, sync_playwright  # noqa: E402

PATIENCE = 120_000  # milliseconds; far beyond what a page takes on a slow and busy machine
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield started
        started.close()
