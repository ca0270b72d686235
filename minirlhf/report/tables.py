"""The tables of the report, once, for Markdown (results/tables.md) and for the page."""

import re
from dataclasses import dataclass
from html import escape

from minirlhf.report.inputs import Inputs, Row
from minirlhf.report.style import SYSTEMS
from minirlhf.report.verdict import Check

# measure -> (what it is called, decimals); in the order of the table. Shares are shown in percent.
MEASURES = {
    "gold": ("gold score", 2),
    "judge": ("", 2),  # called after the judge
    "reward": ("training reward", 2),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "length": ("tokens", 1),
    "ended": ("ended by themselves", "%"),
    "coverage": ("words copied from the post", "%"),
    "density": ("mean length of a copied run, words", 2),
    "repetition": ("trigrams said again", "%"),
    "distinct2": ("distinct bigrams", "%"),
    "duplicates": ("same as another post's", "%"),
    "entropy": ("entropy, nats a token", 2),
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        columns = zip(*(self.rows or [self.header]), strict=True)
        rules = ("---:" if all(cell[:1] in "+-.0123456789" for cell in column) else "---" for column in columns)
        lines = [self.header, tuple(rules), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def html(self) -> str:
        """The table in HTML, every cell escaped."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
        body = "".join(
            f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
            for first, *rest in self.rows
        )
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(self.title)}"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def measures_table(inputs: Inputs) -> Table:
    """Every measure of every system, and PPO minus SFT with its interval."""
    rows = []
    for name, (label, decimals) in MEASURES.items():
        label = inputs.score_names.get(name, label)
        cells = [_value(inputs.measure(system, name), decimals) for system in SYSTEMS]
        if any(cells):
            rows.append((label, *cells, _interval(inputs.measure("ppo - sft", name), decimals)))
    return Table("Before and after", ("", *(label for label, _ in SYSTEMS.values()), "PPO minus SFT"), rows)


def greedy_table(inputs: Inputs) -> Table:
    """The main measures with greedy decoding."""
    rows = []
    for name in ("gold", "judge", "reward", "rougeL", "length"):
        label, decimals = inputs.score_names.get(name, MEASURES[name][0]), MEASURES[name][1]
        found = [inputs.measure(system, name, "greedy") for system in ("sft", "ppo")]
        if all(found):
            rows.append((label, *(_interval(row, decimals) for row in found)))
    return Table("Greedy decoding", ("", "SFT", "PPO"), rows)


def win_rate_table(inputs: Inputs) -> Table:
    """Every win rate: by judge and decoding, as they are and with lengths matched."""
    rows, found = [], {}
    for row in inputs.plots["win_rates"]:
        found.setdefault((row["judge"], row["decoding"], row["system"], row["against"]), {})[row["lengths"]] = row
    for (judge, decoding, system, against), pair in found.items():
        name = f"{SYSTEMS[system][0]} against {SYSTEMS[against][0]}, {decoding}, by {judge}"
        rows.append((name, *(_interval(pair[lengths], "%") for lengths in ("as they are", "matched"))))
    return Table("Win rates", ("ties count one half", "as they are", "lengths matched"), rows)


def reward_table(inputs: Inputs) -> Table:
    """What the reward model is worth on held-out comparisons."""
    names = {
        "reward_accuracy": "accuracy on held-out comparisons",
        "reward_accuracy_given": "on the given ones",
        "reward_accuracy_collected": "on those of SFT's summaries",
        "reward_test_loss": "loss, nats a comparison (guessing: 0.693)",
    }
    metrics = inputs.metrics["reward"]
    rows = [(text, f"{metrics[name]:.3f}") for name, text in names.items() if name in metrics]
    return Table("Reward model", ("", "held out"), rows)


def checks_table(checks: list[Check]) -> Table:
    """Every check with its numbers."""
    rows = [(check.name, "no" if check.passed else "**yes**", check.text) for check in checks]
    return Table("Signs of a gamed reward", ("looked for", "found", "what was measured"), rows)


def markdown(inputs: Inputs, checks: list[Check], sentences: tuple[str, ...]) -> str:
    """results/tables.md: the verdict and every table."""
    tables = [measures_table(inputs), win_rate_table(inputs), greedy_table(inputs), reward_table(inputs)]
    parts = ["# Results in tables", " ".join(sentences), "Intervals are 95%, by bootstrap over posts."]
    for table in [*tables, checks_table(checks)]:
        parts += [f"## {table.title}", table.markdown()]
    return "\n\n".join(parts) + "\n"


def _format(value: float, decimals: int | str) -> str:
    text = f"{value:.1%}" if decimals == "%" else f"{value:.{decimals}f}"
    return text if re.search("[1-9]", text) else text.removeprefix("-")


def _value(row: Row | None, decimals: int | str) -> str:
    return "" if row is None else _format(row["value"], decimals)


def _interval(row: Row | None, decimals: int | str) -> str:
    if row is None or row["low"] is None:
        return ""
    return f"{_format(row['value'], decimals)} ({_format(row['low'], decimals)} to {_format(row['high'], decimals)})"
