"""A real browser, where there is one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def dom(page: str, tmp_path: Path) -> tuple[str, set[str]]:
    """Return what a browser made of a page, and the addresses that it asked."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    log = tmp_path / "net.json"
    seen = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'user'}",
            f"--log-net-log={log}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            page,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    events = json.loads(log.read_text())["events"]
    asked = {event["params"]["url"] for event in events if "url" in event.get("params", {})}
    asked = {url for url in asked if url.startswith(("http", "ws"))}
    # The browser itself asks its maker for the time and for updates.
    return seen, {url for url in asked if not re.match(r"https?://[^/]*google(apis)?\.com/", url)}
