import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.evaluation.winrate import length_controlled_win_rate, win_rates, wins_by_score
from minirlhf.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_ties_count_one_half():
    estimate = BOOTSTRAP.mean(wins_by_score([3, 1, 2, 5], [1, 3, 2, 0]))
    assert estimate.value == pytest.approx(0.625)
    assert estimate.low < 0.625 < estimate.high


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20))
def test_the_two_sides_share_every_post(pairs):
    a, b = np.array(pairs).T
    assert np.all(wins_by_score(a, b) + wins_by_score(b, a) == 1)


def test_equal_lengths_leave_the_win_rate_alone():
    wins = np.array([1.0] * 70 + [0.0] * 20 + [0.5] * 10)
    estimate = length_controlled_win_rate(wins, np.zeros(100), BOOTSTRAP)
    assert estimate.value == pytest.approx(0.75, abs=1e-3)


def test_posts_without_a_verdict_are_left_out():
    wins, difference = np.array([1.0, np.nan, 0.5, 0.0, 1.0]), np.array([1.0, 50.0, -1.0, 2.0, 0.0])
    judged = [0, 2, 3, 4]
    plain, matched = win_rates(wins, difference, BOOTSTRAP)
    assert plain == BOOTSTRAP.mean(wins[judged]) and plain.value == 0.625
    assert matched == length_controlled_win_rate(wins[judged], difference[judged], BOOTSTRAP)


def test_two_groups_by_hand():
    # Length differences -1 and +1: the regression is saturated, so each group's fitted chance is its share of
    # wins, logit(.4) = theta - phi * t and logit(.9) = theta + phi * t, whence theta is the mean of the two
    # logits.
    wins = np.array([1.0] * 40 + [0.0] * 60 + [1.0] * 90 + [0.0] * 10)
    difference = np.repeat([-1.0, 1.0], 100)
    expected = sigmoid((np.log(0.4 / 0.6) + np.log(0.9 / 0.1)) / 2)
    assert length_controlled_win_rate(wins, difference, BOOTSTRAP).value == pytest.approx(expected, abs=1e-3)


def test_wins_that_are_only_length_come_down_to_one_half():
    rng = np.random.default_rng(0)
    difference = rng.normal(6.0, 8.0, 1500)  # longer on most posts
    wins = (rng.random(1500) < sigmoid(2.0 * np.tanh(difference / 8.0))).astype(float)
    assert BOOTSTRAP.mean(wins).value > 0.65
    controlled = length_controlled_win_rate(wins, difference, BOOTSTRAP)
    assert controlled.low < 0.5 < controlled.high


def test_a_clean_sweep_has_a_finite_answer():
    estimate = length_controlled_win_rate(np.ones(50), np.full(50, 3.0), BOOTSTRAP)
    assert 0.8 < estimate.low <= estimate.value <= estimate.high <= 1.0


def test_controlled_intervals_cover_the_truth():
    rng, few = np.random.default_rng(3), Bootstrap(0, 500)
    theta, trials, hits = 0.5, 800, 0
    for _ in range(trials):
        difference = rng.normal(0.0, 5.0, 200)
        wins = (rng.random(200) < sigmoid(theta + 0.8 * np.tanh(difference / 5.0))).astype(float)
        estimate = length_controlled_win_rate(wins, difference, few)
        hits += estimate.low <= sigmoid(theta) <= estimate.high
    assert 0.93 <= hits / trials <= 0.97
