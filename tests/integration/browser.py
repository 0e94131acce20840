"""Debian's Chromium without a screen, driven over its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from containers.engine import need
from integration.proxy import wait_for

# The middle of an element that has not moved for two frames, and that a click there would reach; null for none.
_FIND_POINT = """async (selector) => {
  const find = () => {
    const {x, y, width, height} = document.querySelector(selector).getBoundingClientRect();
    return [x + width / 2, y + height / 2];
  };
  if (!document.querySelector(selector)) return null;
  document.querySelector(selector).scrollIntoView({block: "nearest"});
  const before = find();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const element = document.querySelector(selector), hit = element && document.elementFromPoint(...before);
  return hit && element.contains(hit) && String(find()) === String(before) ? before : null;
}"""
_KEYS = {"Enter": "\r", "Escape": "", "ArrowDown": "", "ArrowUp": ""}


class Tab:
    """A tab: what it shows, and what a person does to it.

    Attributes:
        faults: Errors of scripts, violations of the page's policy, and failed loads.
        urls: What it has asked for.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.faults: list[str] = []
        self.urls: list[str] = []
        self._connection = connection
        self._numbers = itertools.count(1)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(60))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(params["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(params["entry"]["text"])
        elif message["method"] == "Network.requestWillBeSent":
            self.urls.append(params["request"]["url"])

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        assert "errorText" not in self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def read(self, selector: str) -> str:
        """Return the text that an element shows, "" where there is none."""
        return str(self.run(f"(document.querySelector({json.dumps(selector)}) || {{innerText: ''}}).innerText"))

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        wait_for(lambda: self.run(f"Boolean({expression})"), lambda: f"{expression}: {self.read('body')}")

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse, after scrolling to it, once it rests and is on top."""
        find = f"({_FIND_POINT})({json.dumps(selector)})"
        points: list[list[float]] = []
        wait_for(lambda: points.append(self.run(find)) or points[-1], lambda: f"{selector}: {self.read('body')}")
        x, y = points[-1]
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key."""
        text = _KEYS.get(key, key)
        more = {"text": text} if text else {}
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def resize(self, width: int, height: int) -> None:
        """Give the page other measures."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        """Have the page drawn light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def shoot(self, path: Path) -> None:
        """Write a screenshot."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browsing() -> Iterator[Tab]:
    """Run Chromium and yield its tab."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        words += ["--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank"]
        need("chromium")
        with open(Path(directory, "log"), "wb") as log:
            process = subprocess.Popen(["chromium", *words], stdout=log, stderr=log)
        try:
            port_file = Path(directory, "DevToolsActivePort")
            said = Path(directory, "log").read_text
            wait_for(lambda: port_file.exists() and len(port_file.read_text().split()) == 2, said)
            port, path = port_file.read_text().split()
            yield from _attach(f"ws://127.0.0.1:{port}", path)
        finally:
            process.terminate()
            process.wait(30)


def _attach(address: str, path: str) -> Iterator[Tab]:
    with connect(f"{address}{path}", max_size=None, ping_interval=None, max_queue=None) as browser:
        browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        targets = json.loads(browser.recv(60))["result"]["targetInfos"]
    tab = next(target["targetId"] for target in targets if target["type"] == "page")
    with connect(f"{address}/devtools/page/{tab}", max_size=None, ping_interval=None, max_queue=None) as connection:
        yield Tab(connection)
