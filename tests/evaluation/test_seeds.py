import random

import pytest

from minirlhf.evaluation.seeds import COLUMNS, is_among, seed_row
from minirlhf.statistics.intervals import mean_interval, t975


def metrics(gold, **changed):
    system = {"reward": 0.5, "rougeL": 0.4, "length": 20.0}
    rates = {name: {"value": 0.7, "low": 0.6, "high": 0.8} for name in ("ppo_vs_sft", "ppo_vs_reference")}
    return {"sft": {**system, "gold": 3.0}, "ppo": {**system, "gold": gold}, "kl": 2.0, "win_rate": rates, **changed}


def test_a_row_has_the_deciding_judges_scores():
    row = seed_row(4, metrics(4.5))
    assert tuple(row) == COLUMNS
    assert (row["seed"], row["sft_score"], row["ppo_score"], row["gain"], row["ppo_vs_sft"]) == (4, 3.0, 4.5, 1.5, 0.7)
    real = metrics(4.5)
    for system in ("sft", "ppo"):
        del real[system]["gold"]
    assert seed_row(1, real)["ppo_score"] == 0.5


def test_t_quantiles_are_those_of_the_tables():
    # NIST/SEMATECH e-Handbook, table 1.3.6.7.2
    assert (t975(1), t975(4)) == (pytest.approx(12.706, abs=5e-4), pytest.approx(2.776, abs=5e-4))
    assert t975(31) == pytest.approx(2.0395, abs=5e-5)
    assert t975(120) == pytest.approx(1.9799, abs=5e-5) and t975(10**6) == pytest.approx(1.95997, abs=5e-6)


def test_intervals_are_those_of_students_t():
    # 1, 2, 3, 4, 5: s = sqrt(2.5), half = 2.77645 x sqrt(2.5) / sqrt(5) = 2.77645 x sqrt(0.5)
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == {"value": 3.0, "low": 1.03676, "high": 4.96324}
    assert mean_interval([2.0]) == {"value": 2.0, "low": None, "high": None}


def test_intervals_over_five_seeds_cover_the_truth():
    rng = random.Random(1)
    found = [mean_interval([rng.gauss(3.0, 2.0) for _ in range(5)]) for _ in range(4000)]
    assert 0.93 <= sum(row["low"] <= 3.0 <= row["high"] for row in found) / len(found) <= 0.97


def test_whether_a_run_is_one_of_the_seeds():
    rows = [seed_row(seed, metrics(4.0 + seed)) for seed in (0, 1)]
    assert is_among(metrics(5.0), rows) and not is_among(metrics(5.1), rows)
