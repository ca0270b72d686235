"""Open a page in headless Chromium, and say what it shows: what only a browser can tell of a page made of scripts."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Before all other scripts of the page; what it saw stands in an element of its own at the end of the page's time.
PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || `not loaded: ${event.target.src}`), true);
addEventListener("unhandledrejection", event => errors.push(String(event.reason)));
console.error = (...words) => errors.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
    const marks = view => view.querySelectorAll(".role-mark path, .role-mark line").length;
    const found = document.createElement("pre");
    found.id = "probe";
    found.textContent = JSON.stringify({
        errors,
        requests: performance.getEntriesByType("resource").map(entry => entry.name),
        views: [...document.querySelectorAll(".vega-embed")].map(view => [view.id, marks(view)]),
        empty: [...document.querySelectorAll("body > div:empty")].map(place => place.id),
        images: [...document.images].map(image => image.naturalWidth),
        drawings: [...document.querySelectorAll("figure svg")].map(drawing => drawing.querySelectorAll("path").length),
    });
    document.body.append(found);
}, 3000));
</script>"""


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page."""

    errors: list[str]  # of scripts, the console and what could not be loaded
    requests: list[str]  # addresses
    views: list[tuple[str, int]]  # name and number of marks of every plot by Vega
    empty: list[str]  # places for a plot in which nothing is
    images: list[int]  # width of each, 0 where it could not be shown
    drawings: list[int]  # number of paths of each figure's inline SVG


def look(page: Path) -> Shown:
    """Open a page; the test is skipped where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{PROBE}", 1), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom")
    done = subprocess.run([CHROMIUM, *flags, probed.as_uri()], capture_output=True, text=True, timeout=300)
    probed.unlink()
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return Shown(**json.loads(html.unescape(found[1])))
