"""The tables of the report, once, for Markdown (results/tables.md) and for the page."""

import re
from dataclasses import dataclass
from typing import Any

from minirlhf.report.alarms import Check
from minirlhf.report.inputs import Inputs, Row, shorten
from minirlhf.report.panels_training import PROBES
from minirlhf.report.style import name_systems
from minirlhf.report.verdict import percent, share
from minirlhf.runtime.errors import printable
from minirlhf.statistics.intervals import mean_interval

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
    "title": ("little else than the title", "%"),
    "repetition": ("trigrams said again", "%"),
    "distinct2": ("distinct bigrams", "%"),
    "duplicates": ("same as another post's", "%"),
    "entropy": ("entropy, nats a token", 2),
}

# Column of metrics/seeds.csv -> likewise; {} is the algorithm.
SEEDS = {
    "sft_score": ("SFT's score", 2),
    "ppo_score": ("{}'s score", 2),
    "gain": ("{} minus SFT", 2),
    "kl": ("KL", 2),
    "ppo_vs_sft": ("{} beats SFT", "%"),
    "ppo_vs_reference": ("{} beats the author", "%"),
    "ppo_rougeL": ("{}'s ROUGE-L", 3),
    "ppo_length": ("{}'s tokens", 1),
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
        return "\n".join(
            "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
        )


def measures_table(inputs: Inputs) -> Table:
    """Every measure of every system, and PPO minus SFT with its interval."""
    names, rows = name_systems(inputs.algorithm), []
    header = ("", *(label for label, _ in names.values()), f"{inputs.algorithm} minus SFT")
    for name, (label, decimals) in MEASURES.items():
        label = inputs.score_names.get(name, label)
        cells = [without_interval(inputs.measure(system, name), decimals) for system in names]
        if any(cells):
            rows.append((label, *cells, with_interval(inputs.measure("ppo - sft", name), decimals)))
    return Table("Before and after, at the training temperature", header, rows)


def best_table(inputs: Inputs) -> Table:
    """Each system at its own best temperature: the score, and how often it beats SFT."""
    best, rate = inputs.metrics["evaluate"]["best"], inputs.metrics["evaluate"]["win_rate"]["ppo_vs_sft"]
    score = inputs.scoring
    rows = [("authors", "", with_interval(inputs.measure("reference", score), 2), "")]
    for system, label, wins in (("sft", "SFT", ""), ("ppo", inputs.algorithm, with_interval(rate, "%"))):
        found = with_interval(inputs.measure(system, score, "best"), 2)
        rows.append((label, f"{best[system]['temperature']:g}", found, wins))
    if of_n := best["best_of_n"]:
        name = f"best of {of_n['n']} of SFT, {of_n['posts']} posts"
        rows.insert(2, (name, f"{of_n['temperature']:g}", with_interval(of_n[score], 2), ""))
    return Table("Best against best", ("", "temperature", inputs.score_name, "beats SFT"), rows)


def greedy_table(inputs: Inputs) -> Table:
    """The main measures with greedy decoding."""
    rows = []
    for name in ("gold", "judge", "reward", "rougeL", "length"):
        label, decimals = inputs.score_names.get(name, MEASURES[name][0]), MEASURES[name][1]
        found = [inputs.measure(system, name, "greedy") for system in ("sft", "ppo")]
        if all(found):
            rows.append((label, *(with_interval(row, decimals) for row in found)))
    return Table("Greedy decoding", ("", "SFT", inputs.algorithm), rows)


def win_rate_table(inputs: Inputs) -> Table:
    """Every win rate: by judge and decoding, as they are and with lengths matched."""
    names, rows, found = name_systems(inputs.algorithm), [], {}
    for row in inputs.plots["win_rates"]:
        found.setdefault((row["judge"], row["decoding"], row["system"], row["against"]), {})[row["lengths"]] = row
    for (judge, decoding, system, against), pair in found.items():
        name = f"{names[system][0]} against {names[against][0]}, {decoding}, by {judge}"
        rows.append((name, *(with_interval(pair[lengths], "%") for lengths in ("as they are", "matched"))))
    return Table("Win rates", ("ties count one half", "as they are", "lengths matched"), rows)


def frontier_table(inputs: Inputs) -> Table:
    """Every point of the frontier: what a KL from SFT bought, by the training reward and by the judge."""
    scores = {"proxy": "training reward"} | ({} if inputs.scoring == "reward" else {"gold": inputs.score_name})
    rows = []
    for row in inputs.plots["frontier"]:
        name = f"{inputs.algorithm} after {row['point']:,} episodes" if row["point"] else "SFT"
        if row["method"] == "best-of-n":
            name = f"best of {row['point']} by the training reward"
        elif row["method"] == "round":
            name = f"{inputs.algorithm} of round {row['point']}"
        cells = [{"value": row[score], "low": row[f"{score}_low"], "high": row[f"{score}_high"]} for score in scores]
        rows.append((name, _format(row["kl"], 2), *(with_interval(cell, 2) for cell in cells)))
    return Table("Score against KL", ("", "KL from SFT, nats", *scores.values()), rows)


def rounds_table(inputs: Inputs) -> Table:
    """What each round of feedback bought: of each policy the score, the reward and its price, of its reward model the
    faults that it sees."""
    rows, probes = [], list(dict.fromkeys(seen["probe"] for row in inputs.rounds for seen in row["probes"]))
    for row in inputs.rounds:
        name = f"{inputs.algorithm} after {row['learnt']}" if row["learnt"] else "SFT"
        seen = {found["probe"]: found for found in row["probes"]}
        cells = [with_interval(row[key], 2) for key in ("score", "reward", "kl")]
        rows.append((name, *cells, *(without_interval(seen.get(probe), "%") for probe in probes)))
    scores = (inputs.score_name, "reward, by the last model", "KL from SFT, nats")
    return Table("Rounds of feedback", ("rounds", *scores, *(PROBES.get(probe, probe) for probe in probes)), rows)


def reward_table(inputs: Inputs) -> Table:
    """What the reward model is worth on held-out comparisons."""
    metrics = inputs.metrics["reward"]
    gold, length = metrics.get("reward_gold", {}), metrics.get("reward_length", {})
    accuracy = metrics.get("reward_intervals", {}).get("accuracy")
    ceiling, rules, confidence = (metrics.get(f"reward_{name}", {}) for name in ("ceiling", "rules", "confidence"))
    writers = "all policies'" if inputs.rounds else "SFT's"
    cells = {
        "accuracy on held-out comparisons": with_interval(accuracy, 3) or plain_number(metrics.get("reward_accuracy")),
        "on the given ones": plain_number(metrics.get("reward_accuracy_given")),
        f"on those of {writers} summaries": plain_number(metrics.get("reward_accuracy_collected")),
        "the most that the annotators' noise allows": with_interval(ceiling.get("accuracy"), 3),
        "share of the way there from guessing": plain_number(ceiling.get("share_of_the_way")),
        "accuracy of the rule that the longer wins (a coin: 0.500)": with_interval(rules.get("longer"), 3),
        "loss, nats a comparison (guessing: 0.693)": plain_number(metrics.get("reward_test_loss")),
        "Brier score (guessing: 0.250)": plain_number(confidence.get("brier")),
        "expected calibration error": plain_number(confidence.get("ece")),
        "both scored alike": plain_number(confidence.get("ties")),
        "ordered as the gold judge does": with_interval(gold.get("model"), 3),
        "so ordered by the annotators": with_interval(gold.get("annotators"), 3),
        "rank correlation of score and gold": plain_number(gold.get("spearman")),
        "the longer summary preferred": with_interval(length.get("longer_by_model"), 3),
        "so preferred by the annotators": with_interval(length.get("longer_by_annotators"), 3),
        "rank correlation of score and length": plain_number(length.get("spearman")),
    }
    return Table("Reward model", ("", "held out"), [(text, cell) for text, cell in cells.items() if cell])


def probe_table(inputs: Inputs) -> Table:
    """What each fault of a summary costs by the reward model, and by the gold judge."""
    rows = []
    for row in inputs.plots["reward_probes"]:
        ends = {name: row[f"difference{end}"] for name, end in (("value", ""), ("low", "_low"), ("high", "_high"))}
        name = PROBES.get(row["probe"], row["probe"])
        rows.append((name, with_interval(row, "%"), with_interval(ends, 2), _format(row["gold"], 2)))
    return Table("Probes", ("one fault in a clean summary", "the clean preferred", "reward lost", "gold lost"), rows)


def checks_table(checks: list[Check]) -> Table:
    """Every check with its numbers."""
    rows = [(check.name, "no" if check.passed else "**yes**", check.text) for check in checks]
    return Table("Signs of a gamed reward", ("looked for", "found", "what was measured"), rows)


def seeds_table(rows: list[Row], algorithm: str = "PPO") -> Table:
    """Every training seed (rows of metrics/seeds.csv), and the mean with its interval over seeds."""
    columns = {name: decimals for name, (_, decimals) in SEEDS.items()}
    lines = [(str(row["seed"]), *(_format(row[name], columns[name]) for name in columns)) for row in rows]
    if len(rows) > 1:
        means = {name: mean_interval([row[name] for row in rows]) for name in columns}
        lines.append(("mean", *(with_interval(means[name], columns[name]) for name in columns)))
    return Table("Training seeds", ("seed", *(label.format(algorithm) for label, _ in SEEDS.values())), lines)


def seeds_note(inputs: Inputs) -> str:
    """How to read the table of seeds, and whether it is about this run's settings."""
    count = len(inputs.plots["seeds"])
    note = f"Means over {count} training seeds with 95% t intervals, which are wide where seeds are few; all seeds are "
    note += "evaluated on the same posts."
    if inputs.among_seeds:
        return f"{note} Scores are the {inputs.score_name}."
    return (
        f"{note} The run on this page is none of them: they had other settings, and perhaps other data and another "
        "judge, or ran on another machine."
    )


def people_tables(inputs: Inputs) -> list[Table]:
    """People's win rates, and the table of judges; none where nobody has voted."""
    found = inputs.metrics["evaluate"].get("people")
    if found is None:
        return []
    names = {system: label for system, (label, _) in name_systems(inputs.algorithm).items()}
    rates = []
    for key, rate in found["win_rate"].items():
        one, other = key.split("_vs_")
        rates.append((f"{names[one]} beats {names[other]}", str(rate["votes"]), percent(rate)))
    judges = [
        (shorten(name), *(share(row[key]) for key in ("agreement", "longer", "first_place")))
        for name, row in found["judges"].items()
    ]
    header = ("", "agrees with people's votes", "prefers the longer summary", "prefers the first or left one")
    tables = [
        Table("People's votes", ("", "votes", "share of the votes"), rates),
        Table("Judges next to people", header, judges),
    ]
    if found["attention"]:
        checks = [
            (shorten(name), str(row["pairs"]), percent(row["percent"])) for name, row in found["attention"].items()
        ]
        tables.append(Table("Pairs whose answer is known", ("voter", "pairs", "answered so"), checks))
    return tables


def markdown(inputs: Inputs, checks: list[Check], sentences: tuple[str, ...]) -> str:
    """results/tables.md: the verdict and every table."""
    tables = [
        best_table(inputs),
        *people_tables(inputs),
        measures_table(inputs),
        win_rate_table(inputs),
        greedy_table(inputs),
        frontier_table(inputs),
    ]
    tables += [rounds_table(inputs)] if inputs.rounds else []
    tables += [reward_table(inputs)]
    tables += [probe_table(inputs)] if inputs.plots["reward_probes"] else []
    parts = ["# Results in tables", " ".join(sentences), "Intervals are 95%, by bootstrap over posts."]
    for table in [*tables, checks_table(checks)]:
        parts += [f"## {table.title}", table.markdown()]
    if inputs.plots["seeds"]:
        table = seeds_table(inputs.plots["seeds"], inputs.algorithm)
        parts += [f"## {table.title}", seeds_note(inputs), table.markdown()]
    return "\n\n".join(parts) + "\n"


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (dotted key, value).

    >>> flat({"seed": 1, "ppo": {"kl_coef": 0.1, "lora": None}})
    [('seed', '1'), ('ppo.kl_coef', '0.1'), ('ppo.lora', 'null')]
    """
    rows = []
    for key, value in settings.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, "null" if value is None else str(value)))
    return rows


def _format(value: float, decimals: int | str) -> str:
    text = f"{value:.1%}" if decimals == "%" else f"{value:.{decimals}f}"
    return text if re.search("[1-9]", text) else text.removeprefix("-")


def without_interval(row: Row | None, decimals: int | str) -> str:
    """A value alone; nothing where it was not measured."""
    return "" if row is None else _format(row["value"], decimals)


def plain_number(value: float | None) -> str:
    """A number of three decimals; nothing where it was not measured."""
    return "" if value is None else _format(value, 3)


def with_interval(row: Row | None, decimals: int | str) -> str:
    """A value with its interval: 5.43 (5.32 to 5.54); nothing where it was not measured."""
    if row is None or row["low"] is None:
        return ""
    return f"{_format(row['value'], decimals)} ({_format(row['low'], decimals)} to {_format(row['high'], decimals)})"
