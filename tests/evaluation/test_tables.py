import numpy as np
import pytest

from minirlhf.evaluation import tables
from minirlhf.statistics.bootstrap import Bootstrap, Estimate

BOOTSTRAP = Bootstrap(0, 200)


def test_histogram_adds_up_to_100_percent_and_covers_the_extremes():
    rows = tables.histogram({"sft": {"reward": np.array([0.3, 1.5])}, "ppo": {"reward": np.full(5, 3.3)}}, "reward")
    assert sum(row["sft"] for row in rows) == pytest.approx(100)
    assert rows[-1]["ppo"] == 100 and rows[0]["sft"] == 50
    assert rows[0]["reward"] == pytest.approx(0.35) and rows[-1]["reward"] == pytest.approx(3.25)


def test_bins_of_counts_hold_equally_many_whole_numbers():
    rows = tables.histogram({"sft": {"length": np.arange(3.0, 63.0)}}, "length")
    assert len(rows) == 30 and [row["length"] for row in rows[:2]] == [3.5, 5.5]
    assert {row["sft"] for row in rows} == {3.33333}


def test_histogram_of_equal_values():
    rows = tables.histogram({"sft": {"reward": np.zeros(4)}}, "reward")
    assert [row["sft"] for row in rows if row["sft"]] == [100]


def test_win_rates_come_as_they_are_and_matched():
    wins = {("sampled", "gold", "ppo", "sft"): np.array([1.0, 0.5, 0.0, 1.0])}
    lengths = {("sampled", "ppo"): np.full(4, 9.0), ("sampled", "sft"): np.full(4, 9.0)}
    rows = tables.win_rate_rows(wins, lengths, BOOTSTRAP)
    assert [row["lengths"] for row in rows] == ["as they are", "matched"]
    assert rows[0]["value"] == 0.625 and rows[1]["value"] == pytest.approx(0.625, abs=0.01)
    assert rows[0]["judge"] == "gold" and rows[0]["against"] == "sft"


def test_slices_are_thirds_and_subreddits_large_enough():
    tokens = np.arange(30.0)
    wins = (tokens >= 20).astype(float)
    rows = tables.slice_rows(tokens, ["a"] * 12 + ["b"] * 3 + [None] * 15, wins, BOOTSTRAP)
    assert [(row["slice"], row["posts"], row["value"]) for row in rows] == [
        ("post length", 10, 0.0),
        ("post length", 10, 0.0),
        ("post length", 10, 1.0),
        ("subreddit", 12, 0.0),
    ]


def test_slices_count_the_posts_with_a_verdict():
    tokens, wins = np.arange(36.0), np.ones(36)
    wins[:4] = np.nan
    rows = tables.slice_rows(tokens, [None] * 36, wins, BOOTSTRAP)
    assert [row["posts"] for row in rows] == [12, 12]


def test_fact_rows_pair_covered_and_wrong():
    found = {"fact_time_covered": Estimate(0.5, 0.4, 0.6), "fact_time_wrong": Estimate(0.1, 0.0, 0.2)}
    row = tables.fact_rows({"sft": found})[0]
    assert (row["fact"], row["covered"], row["wrong"], row["wrong_high"]) == ("time", 0.5, 0.1, 0.2)
