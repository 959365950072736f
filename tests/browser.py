"""A real browser, where there is one, driven by its debugging protocol over two pipes."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from genoscan.serve import server

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1000,800",
    "--remote-debugging-pipe",
)

# Keep the object that igv.js makes, as igvBrowser.
_KEEP = """
let igv_module;
Object.defineProperty(globalThis, "igv", { get: () => igv_module, set(module) {
  const { createBrowser } = module;
  module.createBrowser = async (...rest) => (globalThis.igvBrowser = await createBrowser(...rest));
  igv_module = module;
} });
"""


class Tab:
    """A page in a browser, the addresses that it asked and what the browser complained of."""

    def __init__(self, send: BinaryIO, receive: BinaryIO) -> None:
        self._send, self._receive = send, receive
        self._number, self._session = 0, None
        self._rest = b""
        self.asked: set[str] = set()
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Browser.setDownloadBehavior", behavior="deny")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=_KEEP)

    def open(self, page: str, *, ready: str = "document.body.dataset.ready === 'yes'") -> None:
        """Open a page, and wait until it is ready."""
        self.asked.clear()
        self.complaints.clear()
        self._call("Page.navigate", url=page)
        self.wait(f"location.href !== 'about:blank' && document.body && ({ready})")

    def emulate(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show pages as a display of some size does, of a phone if it is narrow."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}; {self.complaints}"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """Return the value of an expression; promises are awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer.get("result", {}).get("value")  # nothing while another page is being opened

    def click(self, x: float, y: float, *, button: str = "left") -> None:
        """Press and release a mouse button."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def picture(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                return answer.get("result", {})
            self._note(answer.get("method"), answer.get("params", {}))

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            piece = os.read(self._receive.fileno(), 1 << 16)
            assert piece, "the browser ended"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, event: str | None, about: Any) -> None:
        if event == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if url.startswith(("http", "ws")):
                self.asked.add(url)
        elif event == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"])[:500])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start a browser whose files are in a folder, and give a page of it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    to_read, send = os.pipe()
    receive, to_write = os.pipe()

    def connect() -> None:  # the browser reads from 3 and writes to 4
        first, second = os.dup(to_read), os.dup(to_write)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [chromium, *_OPTIONS, f"--user-data-dir={folder / 'user'}"],
        preexec_fn=connect,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        with os.fdopen(send, "wb") as send_file, os.fdopen(receive, "rb") as receive_file:
            yield Tab(send_file, receive_file)
    finally:
        process.kill()
        process.wait()


def dom(page: str, tmp_path: Path) -> tuple[str, set[str]]:
    """Return what a browser made of a page, and the addresses that it asked."""
    with browser(tmp_path) as tab:
        tab.open(page, ready="document.readyState === 'complete' && Object.keys(document.body.dataset).length > 0")
        time.sleep(1)
        return tab.value("document.documentElement.outerHTML"), tab.asked


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and give its address."""
    with server(folder, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()
