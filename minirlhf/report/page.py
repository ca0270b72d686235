"""results/report.html: one file that needs nothing else, for a reader who doubts.

Everything that came from posts or models is escaped; the page's policy forbids every request but its own styles and
script; without the script all examples are simply shown.
"""

from importlib import resources
from typing import Any

from matplotlib.figure import Figure

from minirlhf.evaluation.examples import differences
from minirlhf.report import tables
from minirlhf.report.alarms import Check
from minirlhf.report.figures import PANELS, PPO, to_svg
from minirlhf.report.inputs import Inputs, Row
from minirlhf.report.style import name_systems
from minirlhf.report.tables import escape
from minirlhf.report.verdict import Verdict
from minirlhf.text.prompts import parse_prompt

LONG_POST = 420  # letters
KINDS = {"sample": "drawn at random", "gain": "largest gains", "loss": "largest losses"}
SECTIONS = {"results": "Results", "price": "Price", "changes": "Changes", "examples": "Examples",
            "training": "Training", "method": "Method"}  # fmt: skip


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
    navigation = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name in SECTIONS.items())
    faults = tables.probe_table(inputs)
    bodies = {
        "results": _panels(panels, "scores", "win_rates") + tables.measures_table(inputs).html()
        + "".join(f"<h3>{escape(table.title)}</h3>{table.html()}" for table in tables.people_tables(inputs))
        + _details("Every win rate", tables.win_rate_table(inputs).html())
        + _details("Greedy decoding", tables.greedy_table(inputs).html())
        + _seeds(inputs, panels),
        "price": _panels(panels, "frontier_gold", "frontier_proxy")
        + _details("Every point", tables.frontier_table(inputs).html()),
        "changes": _panels(panels, "facts", "gold_parts", "reward_distribution", "length_distribution", "rouge",
                           "slices"),
        "examples": _examples(inputs),
        "training": tables.reward_table(inputs).html()
        + (_details("What each fault costs", faults.html()) if faults.rows else "")
        + _panels(panels, "sft_loss", "reward_loss", "calibration", "reward_margins", "gold_margins", "reward_probes",
                  *PPO, "post_lengths"),
        "method": _method(inputs, settings, versions),
    }  # fmt: skip
    sections = "".join(f'<section id="{key}"><h2>{name}</h2>{bodies[key]}</section>' for key, name in SECTIONS.items())
    return PAGE.format(
        style=_file("page.css"),
        script=_file("page.js"),
        outcome=verdict.outcome,
        headline=escape(verdict.headline),
        sentences="".join(f"<p>{escape(sentence)}</p>" for sentence in verdict.sentences),
        checks=_checks(checks),
        navigation=navigation,
        sections=sections,
    )


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<link rel="icon" href="data:,">
<title>MiniRLHF: did alignment help?</title>
<style>
{style}
</style>
</head>
<body>
<a class="skip" href="#results">Skip to the results</a>
<header class="{outcome}">
<p class="kicker">MiniRLHF report</p>
<h1>{headline}</h1>
<div class="verdict">{sentences}</div>
{checks}
</header>
<nav aria-label="Sections"><ul>{navigation}</ul></nav>
<main>{sections}</main>
<footer><p>Drawn by the report stage from metrics, plots and results; nothing on this page is chosen by
hand.</p></footer> <script>
{script}
</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return resources.files("minirlhf.report").joinpath(name).read_text(encoding="utf-8").strip()


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _panels(panels: dict[str, Figure], *keys: str) -> str:
    figures = [
        f"<figure><h3>{escape(PANELS[key].title)}</h3>{to_svg(key, panels[key])}"
        f"<figcaption>{escape(PANELS[key].caption)}</figcaption></figure>"
        for key in keys
        if key in panels
    ]
    return f'<div class="panels">{"".join(figures)}</div>'


def _checks(checks: list[Check]) -> str:
    def items(chosen: list[Check]) -> str:
        return "".join(f"<li><strong>{escape(c.name)}.</strong> {escape(c.text)}</li>" for c in chosen)

    alarms, passed = ([c for c in checks if c.passed == wanted] for wanted in (False, True))
    shown = ""
    if alarms:
        shown = f'<div class="alarms" role="alert"><h2>Alarms</h2><ul>{items(alarms)}</ul></div>'
    count = f"Looked for, and not found: {len(passed)} of {len(checks)} signs of a gamed reward"
    return shown + _details(count, f'<ul class="passed">{items(passed)}</ul>')


def _seeds(inputs: Inputs, panels: dict[str, Figure]) -> str:
    """What other training seeds gave, where `minirlhf seeds` has run them."""
    rows = inputs.plots["seeds"]
    if not rows:
        return ""
    table = tables.seeds_table(rows, inputs.algorithm)
    note = escape(tables.seeds_note(inputs))
    return f"<h3>{escape(table.title)}</h3><p>{note}</p>" + _panels(panels, "seeds") + table.html()


def _examples(inputs: Inputs) -> str:
    rows = [row for row in inputs.summaries if row["shown"]]
    rows.sort(key=lambda row: (list(KINDS).index(row["shown"]), -abs(row["gain"]) if row["shown"] != "sample" else 0))
    kinds = [kind for kind in KINDS if any(row["shown"] == kind for row in rows)]
    buttons = '<button type="button" aria-pressed="true" data-kind="">all</button>' + "".join(
        f'<button type="button" aria-pressed="false" data-kind="{kind}">{KINDS[kind]}</button>' for kind in kinds
    )
    gain = "share of the verdict" if inputs.compares else inputs.score_name
    return (
        f"<p>{len(rows)} of {len(inputs.summaries)} held-out posts: some drawn at random by the seed, then the largest "
        f"gains and the largest losses by {escape(inputs.judge_title)}, each with {inputs.algorithm}'s "
        f"{escape(gain)} minus SFT's. In {inputs.algorithm}'s summary, "
        "what SFT did not say is <ins>underlined</ins> and what it no longer says is <del>struck out</del>.</p>"
        f'<div class="filter" role="search"><label>Search <input type="search" id="search" autocomplete="off"></label>'
        f'<div role="group" aria-label="Which examples">{buttons}</div>'
        f'<p id="count" role="status">{len(rows)} shown</p></div>'
        f'<div id="cards">{"".join(_card(inputs, row) for row in rows)}</div>'
    )


def _card(inputs: Inputs, row: Row) -> str:
    marks = {"same": "{}", "added": "<ins>{}</ins>", "removed": "<del>{}</del>"}
    runs = differences(row["sft"]["summary"], row["ppo"]["summary"])
    changed = " ".join(marks[kind].format(escape(text)) for kind, text in runs)
    texts = {"reference": escape(row["reference"]["summary"]), "sft": escape(row["sft"]["summary"]), "ppo": changed}
    parts = "".join(
        f'<div class="{system}"><dt>{name} <span class="scores">{_scores(inputs, row[system])}</span></dt>'
        f'<dd dir="auto">{texts[system]}</dd></div>'
        for system, (name, _) in name_systems(inputs.algorithm).items()
    )
    gain = "not judged" if row["gain"] is None else f"{row['gain']:+.2f}"
    return (
        f'<article data-kind="{row["shown"]}"><p class="tag">{KINDS[row["shown"]]} '
        f"<span>{gain}</span></p>{_post(row['post'])}"
        f"<dl>{parts}</dl></article>"
    )


def _scores(inputs: Inputs, system: Row) -> str:
    judged = f"{inputs.score_name} {system[inputs.scoring]:.2f}"
    reward = "" if inputs.scoring == "reward" else f", reward {system['reward']:.2f}"
    return judged + reward + f", {system['length']:.0f} tokens" + ("" if system["ended"] else ", cut off")


def _post(prompt: str) -> str:
    """The post: its title, then its text, which is folded where it is long."""
    post = parse_prompt(prompt)
    title, body = (f"r/{post.subreddit}: {post.title}", post.body) if post else ("", prompt)
    heading = f'<h3 dir="auto">{escape(title)}</h3>' if title else ""
    if len(body) <= LONG_POST:
        return f'{heading}<p class="post" dir="auto">{escape(body)}</p>'
    beginning, whole = escape(body[:LONG_POST].rsplit(" ", 1)[0]), _details("the whole post", escape(body))
    return f'{heading}<div class="post" dir="auto">{beginning} ...{whole}</div>'


def _method(inputs: Inputs, settings: dict[str, Any], versions: dict[str, str]) -> str:
    judges = {"gold": "the gold judge of the embedded world, which knows the facts behind each post and which no "
              "training saw, except through the simulated annotators of the comparisons",
              "judge": f"{inputs.judge}, which {inputs.algorithm} was not trained on",
              "reward": "the training reward itself, for want of another: a policy trained on it is bound to do well "
              "by it"}  # fmt: skip
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in tables.flat(settings)
    )
    installed = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in versions.items())
    return (
        f"<p>The judge is {escape(judges[inputs.judging])}. Summaries are sampled at the training temperature "
        f"({settings['ppo']['temperature']}), both policies with the same random numbers on the same post; a tie "
        "counts one half. Intervals are 95%, by bootstrap over posts, drawn together for both sides of a comparison "
        "(Wilson's for the reward model's probes). "
        "The length-controlled win rate is that of a logistic regression at equal lengths (Dubois et al. 2024). KL is "
        f"the mean log ratio of {inputs.algorithm}'s own samples. Best-of-n uses the unbiased estimator over one set "
        "of samples; its KL is ln n - (n - 1) / n. One training seed: the intervals do not cover the variance between "
        "seeds"
        + (", which the table of training seeds shows" if inputs.among_seeds else "")
        + ".</p>"
        + _details("Settings", f'<div class="scroll"><table class="settings"><tbody>{rows}</tbody></table></div>')
        + _details("Versions", f'<div class="scroll"><table class="settings"><tbody>{installed}</tbody></table></div>')
    )
