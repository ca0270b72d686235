import math

import numpy as np
import pytest

from minirlhf import world
from minirlhf.reward_modeling.quality import (
    accuracy,
    by_margin,
    calibration,
    correlations,
    gold_agreement,
    gold_scores,
    hits,
    length_bias,
    margins,
    mean_score,
    preference_loss,
    score_once,
    share,
    summaries_of,
)
from minirlhf.statistics.bootstrap import Bootstrap


def length(prompts, responses):
    return [len(response) for response in responses]


ROWS = [
    {"prompt": "p", "chosen": " long", "rejected": " a"},
    {"prompt": "q", "chosen": " a", "rejected": " bb"},
    {"prompt": "p", "chosen": " a", "rejected": " a longer one"},
]
BOOTSTRAP = Bootstrap(0, 200)


def test_margins_of_comparisons():
    assert margins(ROWS, score_once(length, summaries_of(ROWS))).tolist() == [3, -1, -11]


def test_each_summary_is_scored_once_in_one_call():
    calls = []

    def reward(prompts, responses, ended):
        calls.append(list(zip(prompts, responses, ended, strict=True)))
        return [0.0] * len(prompts)

    row = {"prompt": "p", "chosen": " a", "rejected": " b", "rejected_ended": False}
    score_once(reward, summaries_of([row, {**row, "chosen": " c"}]) + [("p", " a", True)])
    assert calls == [[("p", " a", True), ("p", " b", False), ("p", " c", True)]]


def test_mean_score_of_references():
    assert mean_score(length, [{"prompt": "p", "completion": " ab"}, {"prompt": "q", "completion": " abcd"}]) == 4


def test_accuracy_counts_a_tie_one_half():
    assert accuracy([2.0, -1.0, 0.0, 1.0]) == 2.5 / 4


def test_preference_loss_is_finite_for_any_margin():
    assert preference_loss([0.0]) == pytest.approx(math.log(2))
    assert preference_loss([1.0, -1.0]) == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2)
    assert preference_loss([-1e4]) == pytest.approx(1e4)


def test_calibration_of_a_model_that_is_not_sure_enough():
    # sigmoid(log 2) = 2/3, and the chosen summary was preferred 5 times of 6
    margin = math.log(2)
    assert calibration([margin] * 5 + [-margin], bins=5) == [
        {"predicted": 0.3333, "observed": 0.1667, "count": 6},
        {"predicted": 0.6667, "observed": 0.8333, "count": 6},
    ]


def test_a_share_of_comparisons_has_the_interval_of_posts():
    """Ten comparisons of one post that agree are one observation, not ten."""
    rows = [{"prompt": prompt} for prompt in "ab" for _ in range(10)]
    found = share(np.repeat([1.0, 0.0], 10), rows, BOOTSTRAP)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    independent = [{"prompt": str(index)} for index in range(20)]
    assert share(np.repeat([1.0, 0.0], 10), independent, BOOTSTRAP).low > 0.2
    assert share(np.array([]), [], BOOTSTRAP) is None


def test_bins_by_margin_hold_as_many_comparisons_each():
    of = np.array([0.1, -0.2, 0.3, -0.4, 0.5, 0.6, 0.7, 0.8, -0.9, 1.0])
    rows = [{"prompt": str(index)} for index in range(10)]
    found = by_margin(of, hits(of), rows, BOOTSTRAP)
    assert [row["count"] for row in found] == [2] * 5
    assert [row["margin"] for row in found] == pytest.approx([0.15, 0.35, 0.55, 0.75, 0.95])
    assert [row["value"] for row in found] == [0.5, 0.5, 1.0, 1.0, 0.5]
    assert all(row["low"] <= row["value"] <= row["high"] for row in found)


def test_equal_margins_share_a_bin():
    of = np.array([1.0] * 7 + [-2.0] * 3)
    found = by_margin(of, hits(of), [{"prompt": str(index)} for index in range(10)], BOOTSTRAP)
    assert [(row["margin"], row["value"], row["count"]) for row in found] == [(1.0, 1.0, 7), (2.0, 0.0, 3)]


def test_a_model_that_likes_length():
    scores = score_once(length, summaries_of(ROWS))
    found = length_bias(ROWS, scores, scores, BOOTSTRAP)
    assert found["pearson"] == found["spearman"] == found["longer_by_model"]["value"] == 1
    assert found["longer_by_annotators"]["value"] == pytest.approx(1 / 3)
    disliked = {summary: -score for summary, score in scores.items()}
    assert length_bias(ROWS, disliked, scores, BOOTSTRAP)["longer_by_model"]["value"] == 0


def test_summaries_of_one_length_say_nothing_of_length():
    rows = [{"prompt": "p", "chosen": " a", "rejected": " b"}]
    lengths = dict.fromkeys(summaries_of(rows), 1)
    scores = {summary: float(index) for index, summary in enumerate(lengths)}
    assert set(length_bias(rows, scores, lengths, BOOTSTRAP).values()) == {None}


def test_correlation_of_ranks_sees_any_rising_line():
    assert correlations([1, 2, 3], [1, 10, 1000])["spearman"] == 1
    assert correlations([1, 2, 3], [1, 10, 1000])["pearson"] < 0.9
    assert correlations([3, 1, 2, 2], [0, 3, 1, 2])["spearman"] == pytest.approx(-4.5 / math.sqrt(4.5 * 5))


def test_the_gold_judge_agrees_with_itself_and_annotators_less():
    rows = list(world.comparisons(2, "test", 300))
    golds = gold_scores(rows)
    metrics, table = gold_agreement(rows, golds, BOOTSTRAP)
    assert metrics["model"]["value"] == metrics["spearman"] == 1
    assert 0.65 < metrics["annotators"]["low"] < metrics["annotators"]["high"] < 0.85
    assert all(row["value"] == 1 for row in table if row["who"] == "model")
    annotators = [row for row in table if row["who"] == "annotators"]
    assert annotators[0]["margin"] > 0 and annotators[-1]["value"] > annotators[0]["value"] + 0.1
    untied = sum(golds[row["prompt"], row["chosen"], True] != golds[row["prompt"], row["rejected"], True]
                 for row in rows)  # fmt: skip
    assert sum(row["count"] for row in annotators) == untied < 300


def test_no_gold_where_no_truth_is_known():
    assert gold_scores(ROWS) == {}
    assert gold_agreement(ROWS, score_once(length, summaries_of(ROWS)), BOOTSTRAP) == ({}, [])
