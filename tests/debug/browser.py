"""A headless Chromium that opens one page, driven over a pair of pipes.

The DevTools protocol: JSON messages that end with a NUL byte (``--remote-debugging-pipe``). See
https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

#: The program, None if this machine has none.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-default-browser-check", "--mute-audio", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


def _above(fd: int) -> int:
    """Move a descriptor to a number that is neither 3 nor 4."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD, 50)
    os.close(fd)
    return high


class Browser:
    """One page of a browser.

    Attributes:
        problems: what the page wrote to the console, and exceptions that nothing caught.
        requests: the URLs that the page asked for.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._profile = tempfile.mkdtemp()
        # Chromium reads from 3 and writes to 4. Both may be taken in this process.
        theirs, self._send = os.pipe()
        self._receive, back = os.pipe()
        theirs, back = _above(theirs), _above(back)
        script = f'exec 3<&{theirs} 4>&{back}; exec "$@"'
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            ["bash", "-c", script, "-", CHROMIUM, *_OPTIONS, f"--user-data-dir={self._profile}"],
            pass_fds=(theirs, back),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self._buffer = b""
        self._serial = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Performance.enable", timeDomain="threadTicks")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._send)
        self._process.terminate()
        self._process.wait(20)
        os.close(self._receive)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask the browser; return its answer."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._serial:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, patience: float = 50) -> dict[str, Any]:
        end = monotonic() + patience
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(end - monotonic(), 0))
            assert ready, "the browser does not answer"
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        self._note(event)
        return event

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.problems.append(str([arg.get("value") for arg in parameters["args"]]))
        elif event.get("method") == "Log.entryAdded":
            self.problems.append(parameters["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window, and the colours that its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = "dark" if dark else "light"
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, path: Path) -> float:
        """Open a page; return the seconds until it was drawn."""
        self.call("Page.navigate", url="about:blank")  # what was open before is left in its own time
        begun = monotonic()
        self.call("Page.navigate", url=path.as_uri())
        while not self.run("document.documentElement?.dataset.opened"):
            assert not self.problems
        return monotonic() - begun

    def processor_time(self) -> float:
        """Return how many seconds of a processor the page has taken so far."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until what was asked to be drawn is drawn."""
        self.run(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )

    def press(self, key: str) -> None:
        """Press a key, as a user does."""
        text = {"text": key} if len(key) == 1 else {}
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press or release the mouse, or turn its wheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settle()

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot, of the whole page or of the window."""
        self.settle()
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


def main(page: str, picture: str, width: str = "1280", height: str = "860") -> None:
    """Make a picture of a page: ``python -m tests.debug.browser report.html report.png``."""
    with Browser() as browser:
        browser.size(int(width), int(height))
        browser.open(Path(page).resolve())
        browser.picture(Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
