"""A headless Chromium, spoken to over two pipes: pages are opened at any size, and asked what they hold.

The pictures of a report in docs/images come from ``python tests/browser_helpers.py report.html``.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Page:
    """A tab: what its console said and which requests it made are kept."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.console: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, params, self)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Open a file, and wait until it has loaded."""
        self.console.clear()
        self.requests.clear()
        mobile = width < 700
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._browser.loaded = False
        self.call("Page.navigate", url=path.as_uri())
        self._browser.wait_for_load()

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, button: str = "none") -> None:
        """Move, press or release the mouse: ``mouseMoved``, ``mousePressed``, ``mouseReleased``."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        printed = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])

    def saw(self, message: dict[str, Any]) -> None:
        params = message["params"]
        match message["method"]:
            case "Runtime.consoleAPICalled":
                self.console.append(str([arg.get("value") for arg in params["args"]]))
            case "Runtime.exceptionThrown":
                self.console.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.console.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])


class Browser:
    """One Chromium process; messages are JSON, each ended by a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes], to_it: int, from_it: int) -> None:
        self._process, self._to_it = process, to_it
        self._from_it = os.fdopen(from_it, "rb", buffering=0)
        self._rest, self._last_id, self.loaded = b"", 0, False
        self._page: Page | None = None

    def call(self, method: str, params: dict[str, Any], page: Page | None = None) -> dict[str, Any]:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if page is not None:
            message["sessionId"] = page._session
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for_load(self) -> None:
        while not self.loaded:
            self._next()

    def new_page(self) -> Page:
        tab = self.call("Target.createTarget", {"url": "about:blank"})
        session = self.call("Target.attachToTarget", {"targetId": tab["targetId"], "flatten": True})
        page = self._page = Page(self, session["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._from_it.read(1 << 20)
            assert read, f"Chromium ended with code {self._process.poll()}"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") == "Page.loadEventFired":
            self.loaded = True
        elif "method" in message and self._page is not None:
            self._page.saw(message)
        return message


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with a profile of its own; it ends with the block."""
    assert CHROMIUM is not None
    for_it, to_it = os.pipe()
    from_it, by_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads from descriptor 3 and writes to 4; ours must not be among these when they are moved there.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (for_it, by_it)]
        moved = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        process = subprocess.Popen(
            ["bash", "-c", moved, CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (for_it, by_it, *ends):
            os.close(end)
        browser = Browser(process, to_it, from_it)
        try:
            yield browser
            browser.call("Browser.close", {})
        finally:
            os.close(to_it)
            browser._from_it.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def take_pictures(report: Path, folder: Path) -> None:
    """Write the pictures of the documentation: the page's beginning, light on a desktop and dark on a phone."""
    from PIL import Image

    sizes = {"desktop": (1280, 1850, False, 1.0), "phone": (390, 2300, True, 1.5)}
    with chromium() as browser:
        page = browser.new_page()
        for name, (width, height, dark, scale) in sizes.items():
            path = folder / f"loadtest-report-{name}.png"
            page.open(report, width=width, height=height, dark=dark, scale=scale)
            page.screenshot(path, full=False)
            Image.open(path).convert("RGB").quantize(160).save(path, optimize=True)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]).resolve(), Path(__file__).parents[1] / "docs" / "images")
