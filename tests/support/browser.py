"""Headless Chromium, for tests of pages that compute."""

import pathlib
import shutil
import subprocess
import tempfile

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def shown(page: pathlib.Path, fragment: str = "", *, script: str = "", width: int = 1200) -> str:
    """The document after its scripts ran, and then `script`, in a window of some width."""
    if not CHROMIUM:
        pytest.skip("no chromium here to open the page with; install it to run this test")
    with tempfile.TemporaryDirectory() as folder:
        if script:
            driven = pathlib.Path(folder) / page.name
            driven.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
            page = driven
        arguments = [f"--user-data-dir={folder}/profile", f"--window-size={width},900", "--dump-dom"]
        done = subprocess.run(
            [CHROMIUM, *QUIET, *arguments, f"file://{page}{fragment}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    return done.stdout
