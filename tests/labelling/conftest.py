"""A served session of small pairs, and a browser to open it with."""

import threading

import pytest

from minirlhf.feedback.pairs import Queue, pair_of
from minirlhf.feedback.votes import Pair
from minirlhf.labelling.server import LabelServer
from minirlhf.labelling.session import Session
from tests.labelling.browser import CHROMIUM, DRIVER, Browser, chromedriver

EVIL = '</script><script>document.title="taken"</script><img src=http://192.0.2.1 onerror=alert(1)> \x1b[31m\u202eabc'


def some_pairs(count: int = 40) -> list[Pair]:
    """Pairs of an aligned policy's and SFT's summaries; the first post's texts try to be more than text."""
    pairs = []
    for number in range(count):
        text = EVIL if number == 0 else f"number {number}"
        prompt = f"SUBREDDIT: r/test\n\nTITLE: post {text}\n\nPOST: body of {text}\n\nTL;DR:"
        pairs.append(pair_of(prompt, ("ppo", f"good {text}", True), ("sft", f"bad {text}", number % 2 == 0)))
    return pairs


@pytest.fixture
def served(tmp_path):
    """A running server over an empty folder of votes."""
    server = LabelServer(Session(tmp_path / "votes", Queue(some_pairs(), 1.0)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def driver():
    """The address of a chromedriver."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here")
    with chromedriver() as address:
        yield address


@pytest.fixture
def open_browser(driver, tmp_path):
    """A function that opens another window, of another profile."""
    opened = []

    def open_one() -> Browser:
        opened.append(Browser(driver, tmp_path))
        return opened[-1]

    yield open_one
    for browser in opened:
        browser.close()
