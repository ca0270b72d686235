"""results/report.html: one file that needs nothing else, for a reader who doubts.

The page is the template `page.html`. Everything that came from posts or models is escaped; the page's policy forbids
every request but its own styles and script; without the script all examples are simply shown.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from minirlhf.evaluation.examples import differences
from minirlhf.report import tables
from minirlhf.report.alarms import Check
from minirlhf.report.figures import PANELS, PPO, to_svg
from minirlhf.report.inputs import Inputs, Row
from minirlhf.report.style import name_systems
from minirlhf.report.verdict import Verdict
from minirlhf.runtime.errors import printable
from minirlhf.text.prompts import parse_prompt

LONG_POST = 420  # letters
KINDS = {"sample": "drawn at random", "gain": "largest gains", "loss": "largest losses"}
# Control characters but tab and line ends, and those that turn the direction of what follows.
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def write_page(
    inputs: Inputs,
    verdict: Verdict,
    checks: list[Check],
    panels: dict[str, Figure],
    settings: dict[str, Any],
    versions: dict[str, str],
) -> str:
    """The whole page.

    Args:
        panels: as `figures.draw_panels` draws them.
        settings: params.yaml as it was read.
        versions: name -> version of what ran.
    """
    return environment().get_template("page.html").render(
        inputs=inputs,
        verdict=verdict,
        alarms=[check for check in checks if not check.passed],
        passed=[check for check in checks if check.passed],
        panels={
            key: {"title": PANELS[key].title, "caption": PANELS[key].caption, "svg": Markup(to_svg(key, figure))}
            for key, figure in panels.items()
        },
        ppo_panels=PPO,
        tables={
            "best": tables.best_table(inputs),
            "measures": tables.measures_table(inputs),
            "people": tables.people_tables(inputs),
            "win_rates": tables.win_rate_table(inputs),
            "greedy": tables.greedy_table(inputs),
            "seeds": tables.seeds_table(inputs.plots["seeds"], inputs.algorithm),
            "frontier": tables.frontier_table(inputs),
            "rounds": tables.rounds_table(inputs),
            "reward": tables.reward_table(inputs),
            "probes": tables.probe_table(inputs),
        },
        seeds_note=tables.seeds_note(inputs),
        kinds=KINDS,
        cards=_cards(inputs),
        gain_name="share of the verdict" if inputs.compares else inputs.score_name,
        judge=_judge(inputs),
        settings=settings,
        settings_rows=tables.flat(settings),
        versions=versions,
    )  # fmt: skip


def environment() -> Environment:
    """The templates of this folder; every text put into one is escaped, its control characters are shown.

    >>> environment().from_string("{{ text }}").render(text="<b>\\x1b[31m")
    '&lt;b&gt;\\\\x1b[31m'
    """
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_show_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _show_controls(value: Any) -> Any:
    """Text with its control characters as in Python's strings; what is HTML already is left alone."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return CONTROLS.sub(lambda match: printable(match[0]), value)
    return value


@dataclass(frozen=True)
class Said:
    """One system's summary of a post: runs of words, each "same", "added" or "removed"."""

    system: str
    name: str
    scores: str
    runs: list[tuple[str, str]]


@dataclass(frozen=True)
class Card:
    """An example: a post and what each system wrote."""

    kind: str  # of KINDS
    gain: str
    title: str
    beginning: str | None  # of a long post's body, which is folded; None: the post is short
    body: str
    summaries: list[Said]


def _cards(inputs: Inputs) -> list[Card]:
    rows = [row for row in inputs.summaries if row["shown"]]
    rows.sort(key=lambda row: (list(KINDS).index(row["shown"]), -abs(row["gain"]) if row["shown"] != "sample" else 0))
    return [_card(inputs, row) for row in rows]


def _card(inputs: Inputs, row: Row) -> Card:
    post = parse_prompt(row["post"])
    title, body = (f"r/{post.subreddit}: {post.title}", post.body) if post else ("", row["post"])
    runs = {system: [("same", row[system]["summary"])] for system in ("reference", "sft")}
    runs["ppo"] = differences(row["sft"]["summary"], row["ppo"]["summary"])
    return Card(
        kind=row["shown"],
        gain="not judged" if row["gain"] is None else f"{row['gain']:+.2f}",
        title=title,
        beginning=None if len(body) <= LONG_POST else body[:LONG_POST].rsplit(" ", 1)[0],
        body=body,
        summaries=[
            Said(system, name, _scores(inputs, row[system]), runs[system])
            for system, (name, _) in name_systems(inputs.algorithm).items()
        ],
    )


def _scores(inputs: Inputs, system: Row) -> str:
    judged = f"{inputs.score_name} {system[inputs.scoring]:.2f}"
    reward = "" if inputs.scoring == "reward" else f", reward {system['reward']:.2f}"
    return judged + reward + f", {system['length']:.0f} tokens" + ("" if system["ended"] else ", cut off")


def _judge(inputs: Inputs) -> str:
    """Who judges, with what there is to know about that."""
    return {
        "gold": "the gold judge of the embedded world, which knows the facts behind each post and which no training "
        "saw, except through the simulated annotators of the comparisons",
        "judge": f"{inputs.judge}, which {inputs.algorithm} was not trained on",
        "reward": "the training reward itself, for want of another: a policy trained on it is bound to do well by it",
    }[inputs.judging]
