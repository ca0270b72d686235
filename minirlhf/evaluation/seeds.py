"""Several training seeds: what is taken from each run, and means with t intervals over runs.

The world, the data and the held-out posts are the same for all; what varies is the randomness of training. With n
seeds an interval is the mean -+ t(n - 1) s / sqrt(n): exact for normal results, and wide where n is small.
"""

from typing import Any

# A row of metrics/seeds.csv. A score is the mean score by the judge that decides: gold, evaluate.judge, or the reward.
COLUMNS = (
    *("seed", "sft_score", "ppo_score", "gain", "sft_reward", "ppo_reward", "kl", "ppo_vs_sft", "ppo_vs_reference"),
    *("sft_rougeL", "ppo_rougeL", "sft_length", "ppo_length"),
)


def seed_row(seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """The row of one training seed from its details/evaluate.json."""
    judging = next(name for name in ("gold", "judge", "reward") if name in metrics["ppo"])
    row: dict[str, Any] = {"seed": seed, "kl": metrics["kl"]}
    for system in ("sft", "ppo"):
        row[f"{system}_score"] = metrics[system][judging]
        row |= {f"{system}_{name}": metrics[system][name] for name in ("reward", "rougeL", "length")}
    row["gain"] = float(f"{row['ppo_score'] - row['sft_score']:.6g}")
    row |= {name: metrics["win_rate"][name]["value"] for name in ("ppo_vs_sft", "ppo_vs_reference")}
    return {name: row[name] for name in COLUMNS}


def is_among(metrics: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether a run with these metrics is one of the rows, whatever its seed."""
    mine = seed_row(0, metrics)
    return any(all(mine[name] == row[name] for name in COLUMNS[1:]) for row in rows)
