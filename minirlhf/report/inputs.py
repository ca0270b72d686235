"""What the other stages measured, as the report reads it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirlhf.evaluation.seeds import COLUMNS as SEED_COLUMNS
from minirlhf.evaluation.seeds import is_among
from minirlhf.runtime.errors import UserError, printable
from minirlhf.runtime.files import numbered_folders, read_csv, read_json, read_jsonl

Row = dict[str, Any]
INTERVAL = ("value", "low", "high")
# The columns that the report draws; others may stand beside them.
COLUMNS = {
    "sft": ("step", "train_loss", "eval_loss"),
    "reward": ("step", "train_loss", "eval_loss", "eval_accuracy"),
    "calibration": ("predicted", "observed", "count"),
    "reward_margins": ("margin", *INTERVAL, "count"),
    "gold_margins": ("margin", "who", *INTERVAL, "count"),
    "reward_probes": ("probe", *INTERVAL, "difference", "difference_low", "difference_high", "gold"),
    "ppo": (
        *("episodes", "reward", "kl", "length", "entropy", "ended"),
        *("policy_loss", "value_loss", "clip_fraction", "explained_variance", "policy_grad_norm"),
    ),
    "lengths": ("source", "column", "tokens", "share"),
    "rewards": ("reward", "reference", "sft", "ppo"),
    "summary_lengths": ("length", "reference", "sft", "ppo"),
    "rouge": ("system", "measure", *INTERVAL),
    "measures": ("decoding", "system", "measure", *INTERVAL),
    "gold_parts": ("system", "measure", *INTERVAL),
    "facts": ("fact", "system", "covered", "covered_low", "covered_high", "wrong", "wrong_low", "wrong_high"),
    "win_rates": ("decoding", "judge", "system", "against", "lengths", *INTERVAL),
    "slices": ("slice", "group", "posts", *INTERVAL),
    "temperatures": ("system", "temperature", *INTERVAL, "posts", "chosen"),
    "frontier": ("method", "point", "kl", *(n + e for n in ("proxy", "gold") for e in ("", "_low", "_high"))),
}
STAGES = ("prepare", "sft", "reward", "ppo", "evaluate")


@dataclass(frozen=True)
class Inputs:
    """Everything that the other stages left behind."""

    metrics: dict[str, dict]  # stage -> details/STAGE.json
    plots: dict[str, list[Row]]  # name -> rows of details/NAME.csv, and of metrics/seeds.csv
    summaries: list[Row]  # details/summaries.jsonl
    # details/rounds/*/reward/reward_probes.csv, of each earlier round of feedback
    round_probes: tuple[list[Row], ...] = ()

    @property
    def algorithm(self) -> str:
        """What aligned the policy that everything here calls ppo: PPO, RLOO, GRPO or DPO."""
        return self.metrics["ppo"].get("algorithm", "ppo").upper()

    def column(self, table: str, name: str) -> tuple[list[float], list[float]]:
        """One column against the first of its table's columns, without the rows that lack either: (x, y)."""
        first = COLUMNS[table][0]
        pairs = [(row[first], row[name]) for row in self.plots[table] if row[first] is not None]
        pairs = [(x, y) for x, y in pairs if y is not None]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def measure(self, system: str, name: str, decoding: str = "sampled") -> Row | None:
        """The row of details/measures.csv with a measure of a system, or None where it was not measured."""
        wanted = (decoding, system, name)
        rows = (row for row in self.plots["measures"] if (row["decoding"], row["system"], row["measure"]) == wanted)
        return next(rows, None)

    @property
    def among_seeds(self) -> bool:
        """Whether this run is one of the training seeds in metrics/seeds.csv, by its numbers."""
        return is_among(self.metrics["evaluate"], self.plots["seeds"])

    @property
    def rounds(self) -> list[Row]:
        """A row a policy at the training temperature: `learnt` from so many rounds of comparisons, then `score`,
        `reward` and `kl` with their intervals, and its reward model's `probes`. None where there was one round only."""
        found = self.metrics["evaluate"]
        if not found.get("rounds"):
            return []
        intervals, probes = found["intervals"], [[], *self.round_probes, self.plots["reward_probes"]]
        policies = [intervals["sft"], *found["rounds"].values(), intervals["ppo"] | {"kl": intervals["kl"]}]
        return [
            {"learnt": learnt, "score": of[self.scoring], "reward": of["reward"], "kl": of.get("kl"), "probes": seen}
            for learnt, (of, seen) in enumerate(zip(policies, probes, strict=True))
        ]

    @property
    def judge(self) -> str:
        """The name of the judge that decides."""
        return self.metrics["evaluate"]["win_rate"]["judge"]

    @property
    def judge_title(self) -> str:
        """That judge, as it is called in a sentence."""
        return {"gold": "the gold judge", "reward": "the training reward"}.get(self.judging, printable(self.judge))

    @property
    def judging(self) -> str:
        """Which judge decides: gold, judge (the one that the params name) or reward."""
        return "judge" if self.compares else self.scoring

    @property
    def scoring(self) -> str:
        """The measure that is shown as the score: the deciding judge's, or the reward if that judge gives none."""
        ppo = self.metrics["evaluate"]["ppo"]
        scores = ("reward",) if self.compares else ("gold", "judge", "reward")
        return next(name for name in scores if name in ppo)

    @property
    def compares(self) -> bool:
        """Whether the deciding judge compares two summaries and gives no scores."""
        return "position_bias" in self.metrics["evaluate"]["win_rate"]

    @property
    def score_name(self) -> str:
        """What that score is called."""
        return self.score_names[self.scoring]

    @property
    def score_names(self) -> dict[str, str]:
        """What each judge's score is called."""
        named = (row["judge"] for row in self.plots["win_rates"])
        other = next((name for name in named if name not in ("gold", "training reward")), "judge")
        return {"gold": "gold score", "judge": f"score by {shorten(other)}", "reward": "training reward"}


def shorten(name: str) -> str:
    """A name for where there is little room, on one line: the end of a path says more than its beginning."""
    name = printable(name)
    return name if len(name) <= 32 else "..." + name[-29:]


def read_inputs(details: Path, seeds: Path) -> Inputs:
    """Read everything: the folder of what the stages measured, and the table of training seeds.

    Raises:
        UserError: a file is missing or cannot be read, or a table lacks a column; named with what makes it.
    """
    tables = {name: read_table(details / f"{name}.csv", columns) for name, columns in COLUMNS.items()}
    tables["seeds"] = read_table(seeds, SEED_COLUMNS)
    metrics = {stage: read_json(details / f"{stage}.json") for stage in STAGES}
    rounds = [folder for _, folder in sorted(numbered_folders(details / "rounds").items())]
    probes = (read_table(folder / "reward/reward_probes.csv", COLUMNS["reward_probes"]) for folder in rounds)
    return Inputs(metrics, tables, read_jsonl(details / "summaries.jsonl"), tuple(probes))


def read_table(path: Path, columns: Iterable[str]) -> list[Row]:
    """The rows of a CSV file that has at least these columns; a file without rows may lack them."""
    rows = read_csv(path)
    missing = [column for column in columns if rows and column not in rows[0]]
    if missing:
        raise UserError(f"{path}: no column {missing[0]}; expected {', '.join(columns)}")
    return rows
