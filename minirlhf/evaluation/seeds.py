"""Several training seeds: what is taken from each run, and means with t intervals over runs.

The world, the data and the held-out posts are the same for all; what varies is the randomness of training. With n
seeds an interval is the mean -+ t(n - 1) s / sqrt(n): exact for normal results, and wide where n is small.
"""

import math
import statistics
from typing import Any

# A row of plots/seeds.csv. A score is the mean score by the judge that decides: gold, evaluate.judge, or the reward.
COLUMNS = (
    *("seed", "sft_score", "ppo_score", "gain", "sft_reward", "ppo_reward", "kl", "ppo_vs_sft", "ppo_vs_reference"),
    *("sft_rougeL", "ppo_rougeL", "sft_length", "ppo_length"),
)
# The 97.5% quantiles of Student's t at 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, table 1.3.6.7.2).
T975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def seed_row(seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """The row of one training seed from its metrics/evaluate.json."""
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


def t975(degrees: int) -> float:
    """The 97.5% quantile of Student's t.

    Beyond the table by its expansion around the normal quantile (Abramowitz and Stegun 26.7.5), right to 3 decimals.
    """
    if degrees <= len(T975):
        return T975[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def mean_interval(values: list[float]) -> dict[str, float | None]:
    """The mean over seeds with its 95% t interval; no interval (low and high None) for a single seed.

    >>> mean_interval([1.0, 2.0, 3.0])  # s = 1: 2 -+ 4.303 / sqrt(3)
    {'value': 2.0, 'low': -0.484338, 'high': 4.48434}
    """
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        half = t975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    rounded = (None if number is None else float(f"{number:.6g}") for number in (mean, low, high))
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def aggregate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Every column's mean and interval over the rows, and their number: metrics/seeds.json."""
    means = {name: mean_interval([row[name] for row in rows]) for name in COLUMNS[1:]} if rows else {}
    return {"seeds": {"count": len(rows), **means}}
