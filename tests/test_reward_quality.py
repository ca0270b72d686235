import math

import pytest

from minirlhf.reward_quality import accuracy, calibration, comparison_margins, mean_score, preference_loss


def length(prompts, responses):
    return [len(response) for response in responses]


def test_margins_of_comparisons_by_post():
    rows = [
        {"prompt": "p", "chosen": " long", "rejected": " a"},
        {"prompt": "q", "chosen": " a", "rejected": " bb"},
        {"prompt": "p", "chosen": " a", "rejected": " a longer one"},
    ]
    assert comparison_margins(length, rows) == [3, -11, -1]


def test_each_summary_is_scored_once():
    seen = []

    def reward(prompts, responses, ended):
        seen.extend(zip(prompts, responses, ended, strict=True))
        return [0.0] * len(prompts)

    row = {"prompt": "p", "chosen": " a", "rejected": " b", "rejected_ended": False}
    comparison_margins(reward, [row, {**row, "chosen": " c"}])
    assert seen == [("p", " a", True), ("p", " b", False), ("p", " c", True)]


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
