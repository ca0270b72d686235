import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.evaluation.frontier import Curve, best_of_n, best_of_n_kl, fit_curve, overoptimized_from
from minirlhf.statistics.bootstrap import Estimate


@pytest.mark.parametrize(("n", "nats"), [(1, 0.0), (4, 0.64), (16, 1.84), (64, 3.17), (1000, 5.91)])
def test_analytic_kl(n, nats):
    assert best_of_n_kl(n) == pytest.approx(nats, abs=0.01)


@given(st.permutations(range(5)), st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.integers(1, 5))
def test_estimate_is_the_mean_over_all_sets(proxy, target, n):
    sets = itertools.combinations(range(5), n)
    expected = np.mean([target[max(chosen, key=lambda i: proxy[i])] for chosen in sets])
    assert best_of_n([proxy], [target], n)[0] == pytest.approx(expected, abs=1e-9)


def test_samples_that_tie_share_their_weight():
    # Of two samples with the same proxy either may be taken: best of 2 is their mean, whatever their order.
    assert best_of_n([[1.0, 1.0]], [[0.0, 4.0]], 2).tolist() == [2.0]
    # Three samples, the best two tie: a pair's best is {a,b}: either, {a,c}: a, {b,c}: b.
    assert best_of_n([[5.0, 5.0, 1.0]], [[1.0, 3.0, 9.0]], 2)[0] == pytest.approx(2.0)


def test_best_of_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="best of 3"):
        best_of_n([[1.0, 2.0]], [[1.0, 2.0]], 3)


@pytest.mark.parametrize("kind", ["best-of-n", "ppo"])
def test_fit_recovers_a_known_curve_and_its_peak(kind):
    truth = Curve(kind, a=2.0, b=0.8)
    kl = np.array([0.0, 0.2, 1.0, 3.0, 8.0, 20.0])
    fitted = fit_curve(kind, kl, np.array([truth.gain(value) for value in kl]))
    assert (fitted.a, fitted.b) == pytest.approx((2.0, 0.8))
    around = [truth.gain(fitted.peak_kl * factor) for factor in (0.99, 1.0, 1.01)]
    assert max(around) == around[1]


def test_three_points_are_too_few_and_a_rising_curve_has_no_peak():
    assert fit_curve("ppo", np.array([0.0, 1.0, 2.0, 3.0]), np.zeros(4)) is None
    assert Curve("ppo", 1.0, -0.1).peak_kl is None
    assert math.isfinite(Curve("ppo", 5.0, 1e-6).peak_kl)


def test_overoptimization_is_marked_at_the_peak():
    def gold(margin):
        return [Estimate(value, value - margin, value + margin) for value in (4.0, 5.0, 3.0)]

    assert overoptimized_from([0.0, 1.0, 2.0], gold(0.2)) == 1
    assert overoptimized_from([0.0, 1.0, 0.5], gold(0.2)) is None  # the proxy fell too
    assert overoptimized_from([0.0, 1.0, 2.0], gold(2.0)) is None  # may be noise
