import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser

import pytest

from minirlhf.report.alarms import run_checks
from minirlhf.report.figures import draw_panels, to_svg
from minirlhf.report.inputs import read_inputs
from minirlhf.report.page import write_page
from minirlhf.report.verdict import give_verdict

NASTY = "<script>document.title='owned'</script><img src=https://example.com/x.png onerror=alert(1)> & \"quotes\" '"


def read(folder):
    return read_inputs(folder / "details", folder / "metrics" / "seeds.csv")


def page_of(inputs, panels=None):
    panels = draw_panels(inputs) if panels is None else panels
    settings = {"seed": 1, "ppo": {"temperature": 0.7, "kl_coef": 0.1}, "model": {"base": "<b>x</b>"}}
    return write_page(inputs, give_verdict(inputs), run_checks(inputs), panels, settings, {"torch": "1<2"})


@pytest.fixture(scope="module")
def page(embedded):
    """The page of an ordinary run."""
    return page_of(read(embedded))


@pytest.fixture(scope="module")
def nasty(embedded):
    """Inputs in which a post and a model's summary try to break out."""
    inputs = read(embedded)
    row = next(row for row in inputs.summaries if row["shown"])
    row["post"] = f"SUBREDDIT: r/{NASTY}\n\nTITLE: {NASTY}\n\nPOST: {NASTY * 8}\n\nTL;DR:"
    for system in ("reference", "sft", "ppo"):
        row[system]["summary"] = NASTY + system
    return inputs


@pytest.fixture(scope="module")
def nasty_page(nasty):
    return page_of(nasty)


def test_rounds_are_on_the_page_where_there_were_some(page, in_rounds):
    assert "Rounds of feedback" in page_of(in_rounds) and "Rounds of feedback" not in page


class Elements(HTMLParser):
    """All elements of a page with their attributes; asserts that they are closed as they were opened."""

    EMPTY = {"meta", "link", "input", "br"}

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_of_posts_and_models_stays_text(nasty_page):
    found = Elements(nasty_page).found
    assert sum(tag == "script" for tag, _ in found) == 1
    assert not [tag for tag, _ in found if tag in ("img", "b", "iframe")]
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]


def test_the_cells_of_tables_are_escaped(page):
    assert '<th scope="row">model.base</th><td>&lt;b&gt;x&lt;/b&gt;</td>' in page
    assert '<th scope="row">torch</th><td>1&lt;2</td>' in page


def test_nothing_is_fetched(page):
    links = [
        value for tag, attributes in Elements(page).found for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data")
    ]  # fmt: skip
    assert links and all(link.startswith("#") or link == "data:," for link in links)
    assert not re.findall(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_every_shown_example_is_there_once(inputs, page):
    shown = [row["shown"] for row in inputs.summaries if row["shown"]]
    found = Elements(page).found
    cards = [attributes["data-kind"] for tag, attributes in found if tag == "article"]
    assert sorted(cards) == sorted(shown) and len(cards) > 20


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(page):
    found = Elements(page).found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for tag, a in found if tag == "a"]
    assert targets and set(targets) <= set(ids)


def test_alarms_come_before_the_plots(inputs):
    inputs.metrics["ppo"]["stopped"] = "KL above its ceiling"
    text = page_of(inputs)
    assert text.index("KL above its ceiling") < text.index("<figure>")


def test_the_same_inputs_give_the_same_page(inputs, page):
    assert page_of(inputs) == page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Appended to a copy of the page: uses it as a reader would, and tells the page around it what it saw.
PROBE = """
<script>
const shown = () => cards.filter((card) => !card.hidden && card.getClientRects().length).length;
const seen = {errors: window.problems, all: shown(), title: document.title, width: window.innerWidth};
seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
// WCAG 2: contrast of every text with what is behind it.
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (color) => parts(color).slice(0, 3).map((c) => c / 255)
  .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!(parts(color)[3] === 0)) return color;
  }
  return "rgb(255, 255, 255)";
};
const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
seen.faint = [...document.querySelectorAll("body *:not(script, style)")].filter(hasText).flatMap((element) => {
  const style = getComputedStyle(element), drawn = element.closest("svg");
  const [a, b] = [light(drawn ? style.fill : style.color), light(behind(element))].sort((x, y) => x - y);
  return (b + 0.05) / (a + 0.05) < 4.5 ? [element.textContent.trim().slice(0, 40)] : [];
});
const controls = [...document.querySelectorAll("a, button, input, summary, [tabindex]")];
seen.unreachable = controls.filter((control) => {
  control.focus();
  return control.getClientRects().length && (document.activeElement !== control || control.tabIndex < 0);
}).length;
buttons[1].click(); seen.sample = shown(); seen.pressed = buttons[1].getAttribute("aria-pressed");
search.value = "owned"; search.dispatchEvent(new Event("input")); seen.word = shown();
seen.status = document.getElementById("count").textContent;
search.value = "no such word"; search.dispatchEvent(new Event("input")); seen.none = shown();
seen.wide = document.documentElement.scrollWidth - window.innerWidth;
seen.requests = performance.getEntriesByType("resource").length;
parent.document.body.dataset.seen = JSON.stringify(seen);
</script>
"""
LISTEN = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...said) => problems.push(said.join(" "));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_works_in_a_browser(nasty, nasty_page, tmp_path, width, dark):
    text = nasty_page.replace("<style>", LISTEN + "<style>", 1).replace("</body>", PROBE + "</body>")
    # In a frame: a window of Chromium's is never narrower than 500.
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{escape(text)}"></iframe>'
    (tmp_path / "page.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}</body>')
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1400,1000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    match = re.search(r'<body data-seen="([^"]*)"', done.stdout)
    assert match, "the page's script did not run"
    seen = json.loads(unescape(match.group(1)))
    shown = [row["shown"] for row in nasty.summaries if row["shown"]]
    assert seen["errors"] == [] and seen["requests"] == 0
    assert (seen["width"], seen["dark"], seen["wide"] <= 0) == (width, dark, True)
    assert (seen["all"], seen["sample"]) == (len(shown), shown.count("sample"))
    assert (seen["pressed"], seen["word"], seen["none"], seen["status"]) == ("true", 1, 0, "1 shown")
    assert seen["title"] == "MiniRLHF: did alignment help?"
    assert (seen["faint"], seen["unreachable"]) == ([], 0)


@pytest.mark.parametrize(("results", "name"), [("scored", "models/own/another-reward-model"), ("compared", "judge-7b")])
def test_the_page_of_another_judge_says_its_name(request, results, name):
    inputs = read(request.getfixturevalue(results))
    panels = draw_panels(inputs)
    text = page_of(inputs, panels)
    Elements(text)
    assert f"judged by {name}" in text and f"The judge is {name}, which PPO was not trained on" in text
    score = f"score by {name}" if results == "scored" else "training reward"
    gained = score if results == "scored" else "share of the verdict"
    assert f"largest losses by {name}, each with PPO's {gained} minus SFT's." in text
    assert re.search(rf'<span class="scores">{score} -?\d', text) and "nan" not in re.findall(r"[\w.]+", text)
    assert "gold judge" not in text and "gold score" not in text
    win_rates, scores = (to_svg(key, panels[key]) for key in ("win_rates", "scores"))
    assert f">by {name}<" in win_rates
    read_aloud = " ".join(re.sub("<[^>]+>", " ", scores).split())  # a long axis name is broken over lines
    assert f">{score}</th>" in text and f"mean {score} (open: training temperature)" in read_aloud
