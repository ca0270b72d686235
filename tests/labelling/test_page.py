"""The page in a headless Chromium, by keyboard alone; skipped where there is none."""

import json
import subprocess
import sys
import threading
import time

import pytest

from minirlhf.feedback.pairs import Queue
from minirlhf.feedback.votes import read_votes
from minirlhf.labelling.packet import packet
from minirlhf.labelling.server import LabelServer
from minirlhf.labelling.session import Session, sequence
from tests.conftest import SOAK
from tests.house import ROOT
from tests.labelling.conftest import EVIL, some_pairs

soak = pytest.mark.skipif(not SOAK, reason="a longer look at the page")


def test_two_voters_by_keyboard_alone_with_undo_and_a_reload(served, tmp_path, open_browser):
    anna = open_browser()
    anna.open(served.address)
    anna.begin("Anna")
    first = anna.run("return ask.pair")
    for key in ("ArrowLeft", "ArrowRight", "t", "s"):
        anna.answer(key)
    assert [vote.choice for vote in read_votes(tmp_path / "votes").cast.values()] == ["left", "right", "tie", "skip"]
    shown = anna.run("return ask.pair")
    anna.post("/refresh")  # in the middle: the same pair again, without asking for the name
    anna.wait_for_pair(4)
    assert anna.run("return ask.pair") == shown
    for left in (3, 2, 1, 0):
        anna.answer("u")
        anna.wait_for_pair(left)
    assert anna.run("return ask.pair") == first
    anna.answer("b")
    assert anna.text("#progress") == "Anna: 1 answered"

    ben = open_browser()
    ben.open(served.address)
    ben.begin("Ben")
    assert ben.run("return ask.pair") == first  # judged by all in the same order
    ben.answer("a")
    told = {vote.voter: vote.choice for vote in read_votes(tmp_path / "votes").cast.values()}
    assert told == {"Anna": "right", "Ben": "left"}
    strangers = [url for browser in (anna, ben) for url in browser.requested()]
    assert strangers and all(url.startswith((served.address, "data:", "about:")) for url in strangers)


def answer_all(browser, count: int, keys: str = "ab") -> None:
    for number in range(count):
        browser.answer(keys[number % len(keys)])


@soak
def test_texts_stay_texts(served, open_browser):
    browser = open_browser()
    browser.open(served.address)
    browser.begin("<b>Anna</b>")
    while "</script>" not in browser.text("#title"):
        browser.answer("a")
    shown = EVIL.replace("\x1b", "\\u001b").replace("\u202e", "\\u202e")
    assert browser.text("#title") == f"post {shown}" and browser.text("#text") == f"body of {shown}"
    assert {browser.text("#a"), browser.text("#b")} == {f"good {shown}", f"bad {shown}"}
    assert browser.run("return document.title") == "Which summary is better?"
    assert browser.run("return document.images.length + document.scripts.length") == 1
    assert browser.text("#progress").startswith("<b>Anna</b>:")
    assert not [url for url in browser.requested() if "192.0.2.1" in url]


@soak
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(served, open_browser, tmp_path, dark):
    browser = open_browser()
    browser.size(390, 844, dark)
    browser.open(served.address)
    browser.begin("Anna")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    boxes = browser.run(
        "return [...document.querySelectorAll('#bar button')].map(b => b.getBoundingClientRect()).map(r => [r.left, "
        "r.right, r.bottom, r.height])"
    )
    assert all(left >= 0 and right <= 390 and bottom <= 844 and height >= 44 for left, right, bottom, height in boxes)
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == dark
    browser.run("document.querySelector('[data-do=right]').click()")
    browser.wait_for_pair(1)


@soak
def test_contrast_is_enough_in_both_modes(served, open_browser):
    """4.5 to 1, as WCAG 2.1 asks of text."""
    browser = open_browser()
    browser.open(served.address)
    browser.begin("Anna")
    script = """
    const lum = c => { const [r, g, b] = c.match(/\\d+/g).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 :
      ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const ground = e => { const c = getComputedStyle(e).backgroundColor; return c.includes(', 0)') ? ground(e.parentElement) : c };
    return ['#text', '#a', '#place', '#progress', '.choice[data-do]', '[data-do=tie]', '#a-name'].map(s => {
      const e = document.querySelector(s), a = lum(getComputedStyle(e).color), b = lum(ground(e));
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); });
    """  # noqa: E501
    for dark in (False, True):
        browser.size(1280, 800, dark)
        assert min(browser.run(script)) >= 4.5


@soak
def test_a_screen_reader_is_told(served, open_browser):
    browser = open_browser()
    browser.open(served.address)
    browser.begin("Anna")
    browser.answer("a")
    assert browser.text("#status") == "Saved. Pair 2."
    assert browser.run("return document.activeElement.id") == "title"
    tree = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    named = {node["name"]["value"].strip() for node in tree if not node.get("ignored") and "name" in node}
    assert {"A is better", "B is better", "Equally good", "Cannot say", "Undo", "Your answer", "A", "B"} <= named
    browser.press("?")
    assert browser.run("return document.querySelector('#help').open")
    browser.press("a", "Escape")  # a key in the help is no answer
    assert browser.run("return [document.querySelector('#help').open, done]") == [False, 1]


@soak
def test_a_held_key_is_one_answer(served, open_browser, tmp_path):
    browser = open_browser()
    browser.open(served.address)
    browser.begin("Anna")
    for repeated in (False, True, True, True):
        browser.devtools("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", autoRepeat=repeated)
    browser.wait_for_pair(1)
    assert len(read_votes(tmp_path / "votes").cast) == 1


@soak
def test_the_page_outlives_its_server(tmp_path, open_browser):
    pairs = some_pairs()
    server = LabelServer(Session(tmp_path / "votes", Queue(pairs, 1.0)))
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = open_browser()
    browser.open(server.address)
    browser.begin("Anna")
    server.shutdown()
    server.server_close()
    browser.run("fetch('/', {method: 'HEAD'}).catch(() => {})")  # lets go of the kept connection
    browser.press("a")
    time.sleep(1.5)
    server = LabelServer(Session(tmp_path / "votes", Queue(pairs, 1.0)), port=port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser.wait_for_pair(1)
    assert len(read_votes(tmp_path / "votes").cast) == 1
    server.shutdown()
    server.server_close()


@soak
def test_a_packet_works_from_disk_and_gives_back_votes(tmp_path, open_browser):
    pairs = some_pairs(20)
    asks = sequence(Queue(pairs, 1.0), "anybody", 20)
    (tmp_path / "packet.html").write_text(packet(asks))
    browser = open_browser()
    browser.open((tmp_path / "packet.html").as_uri())
    browser.begin("Anna")
    assert browser.text("#progress") == "1 of 20"
    answer_all(browser, 5)
    browser.post("/refresh")
    browser.wait_for_pair(5)
    browser.answer("u")
    browser.wait_for_pair(4)
    answer_all(browser, 16)
    assert "20 answers" in browser.text("#end-text")
    browser.run("document.querySelector('#save').click()")
    end = time.monotonic() + 10
    while not (saved := list(tmp_path.glob("votes-*.jsonl"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert all(url.startswith(("file:", "data:", "about:", "blob:")) for url in browser.requested())

    from minirlhf.feedback.votes import Votes, keep

    folder = tmp_path / "data/votes/results"
    keep(folder, Votes(), [ask.pair for ask in asks])
    command = [sys.executable, "-m", "minirlhf", "label", "results", "--import", str(saved[0])]
    for taken in (20, 0):
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
        assert f"{taken} votes taken" in said.stdout, said.stderr
    assert {vote.voter for vote in read_votes(folder).cast.values()} == {"Anna"}


def test_a_packet_holds_no_name_and_its_texts_end_no_script(tmp_path):
    page = packet(sequence(Queue(some_pairs(), 1.0), "anybody", 40))
    assert page.count("</script>") == 2 and not [name for name in ('"ppo"', '"sft"') if name in page]
    content = page.split('id="packet">')[1].split("</script>")[0]
    assert len(json.loads(content)["asks"]) == 40


@soak
def test_the_next_pair_is_shown_within_a_tenth_of_a_second(served, open_browser):
    browser = open_browser()
    browser.open(served.address)
    browser.begin("Anna")
    took = []
    for _ in range(20):
        script = """
        const done = arguments[arguments.length - 1], before = ask.pair, start = performance.now();
        act("left");
        (function look() { ask.pair !== before && !busy ? done(performance.now() - start) : setTimeout(look, 1); })();
        """
        took.append(browser.post("/execute/async", script=script, args=[]))
        browser.wait("performance.now() - since > PAUSE")
    assert sorted(took)[10] < 100, took
