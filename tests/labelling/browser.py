"""A headless Chromium to drive the page with, by chromedriver's own protocol (W3C WebDriver): no package for it."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
KEYS = {"ArrowLeft": "\ue012", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Enter": "\ue007", "Escape": "\ue00c",
        "Tab": "\ue004", "Backspace": "\ue003"}  # fmt: skip


class Browser:
    """One window."""

    def __init__(self, driver: str, downloads: Path):
        self.driver = driver
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options = {
            "binary": CHROMIUM,
            "args": arguments,
            "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        session = self._send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/{session['sessionId']}"

    def _send(self, method: str, path: str, body: dict | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"{self.driver}/session{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def post(self, path: str, **body: Any) -> Any:
        """A command of the protocol."""
        return self._send("POST", self.session + path, body)

    def open(self, url: str) -> None:
        """Open an address; `about:blank` first, so that another #token is another page."""
        self.post("/url", url="about:blank")
        self.post("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.post("/execute/sync", script=script, args=arguments)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, as a person does."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.post("/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def text(self, selector: str) -> str:
        """The text of an element; "" where it is hidden."""
        script = "const e = document.querySelector(arguments[0]); return e.checkVisibility() ? e.textContent : ''"
        return self.run(script, selector)

    def wait(self, condition: str, *arguments: Any, seconds: float = 10) -> None:
        """Until a script returns what is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return {condition}", *arguments):
            assert time.monotonic() < end, f"{condition}: not within {seconds} s"
            time.sleep(0.01)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.post("/goog/cdp/execute", cmd=command, params=parameters)

    def requested(self) -> list[str]:
        """The addresses asked for since the last call."""
        log = (json.loads(entry["message"])["message"] for entry in self.post("/se/log", type="performance"))
        return [entry["params"]["request"]["url"] for entry in log if entry["method"] == "Network.requestWillBeSent"]

    def picture(self, file: Path) -> None:
        """A PNG of the window."""
        file.write_bytes(base64.b64decode(self._send("GET", f"{self.session}/screenshot")))

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """The window's size, and which colours its user likes."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=width < 500)  # fmt: skip
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[wish])

    def begin(self, name: str) -> None:
        """Type a name into the first screen, and wait for the first pair."""
        self.wait("document.activeElement && document.activeElement.id === 'name'")
        self.press(*name, "Enter")
        self.wait_for_pair()

    def wait_for_pair(self, done: int | None = None) -> None:
        """Until a pair is there that can be answered, after `done` answers."""
        self.wait(
            f"!busy && ask && performance.now() - since > PAUSE && (done === {json.dumps(done)} || {done is None:d})"
        )

    def answer(self, key: str) -> None:
        """Answer by a key, and wait for what comes then."""
        before = self.run("return done")
        self.press(key)
        self.wait(f"!busy && done !== {before} && (!ask || performance.now() - since > PAUSE)")

    def close(self) -> None:
        """Close the window."""
        self._send("DELETE", self.session)


@contextlib.contextmanager
def chromedriver() -> Iterator[str]:
    """The address of a running chromedriver."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in driver.stdout:
            if match := re.search(r"on port (\d+)\.", line):
                yield f"http://127.0.0.1:{match[1]}"
                break
    finally:
        driver.terminate()
        driver.wait()
