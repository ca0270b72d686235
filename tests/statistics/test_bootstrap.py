import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.statistics.bootstrap import Bootstrap, rounded

BOOTSTRAP = Bootstrap()


def test_equal_values_have_an_interval_of_no_width():
    estimate = BOOTSTRAP.mean(np.full(20, 2.5))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2.5, 2.5, 2.5))


def test_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    estimate = BOOTSTRAP.mean(values)
    half = 1.96 * values.std() / 20
    assert estimate.value == values.mean()
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)


def test_ratio_is_one_of_sums():
    estimate = BOOTSTRAP.ratio(np.array([1.0, 3.0]), np.array([2.0, 6.0]))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))
    assert BOOTSTRAP.ratio(np.zeros(3), np.zeros(3)).value == 0.0


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.arange(50.0)
    assert Bootstrap(1).mean(values) == Bootstrap(1).mean(values)
    assert Bootstrap(1).mean(values) != Bootstrap(2).mean(values)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_values_that_cannot_be_averaged_are_refused(values):
    with pytest.raises(ValueError):
        BOOTSTRAP.mean(np.array(values))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_value_lies_in_the_range_and_interval_too(values):
    estimate = BOOTSTRAP.mean(np.array(values))
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack


def test_rounding():
    assert rounded(123456.789) == 123457
    assert str(rounded(-0.0)) == "0.0"


@pytest.mark.parametrize("kind", ["wins with ties", "skewed"])
def test_intervals_cover_the_truth_95_times_in_100(kind):
    rng = np.random.default_rng(5)
    trials, posts = 4000, 300
    if kind == "skewed":
        draws, truth = rng.exponential(1.0, (trials, posts)), 1.0
    else:
        draws, truth = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.1, 0.7], size=(trials, posts)), 0.75
    estimates = [BOOTSTRAP.mean(row) for row in draws]
    coverage = np.mean([e.low <= truth <= e.high for e in estimates])
    assert 0.93 <= coverage <= 0.97


def test_intervals_of_a_ratio_cover_the_truth():
    """Shares of comparisons, 1 to 5 a post, that hang together by post: the larger of two chances for all of them."""
    rng, bootstrap = np.random.default_rng(6), Bootstrap(0, 1000)
    hits, trials = 0, 2000
    for _ in range(trials):
        counts = rng.integers(1, 6, 200)
        right = rng.binomial(counts, rng.choice([0.5, 0.9], 200))
        estimate = bootstrap.ratio(right, counts)
        hits += estimate.low <= 0.7 <= estimate.high
    assert 0.93 <= hits / trials <= 0.97
