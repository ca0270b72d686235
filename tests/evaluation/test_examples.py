from hypothesis import given
from hypothesis import strategies as st

from minirlhf.evaluation.examples import choose, differences


def test_largest_gains_and_losses_come_in_order():
    chosen = choose([0.0, 3.0, -1.0, 5.0, -4.0, 3.0], seed=0, sample=0, extremes=2)
    assert chosen == [(3, "gain"), (1, "gain"), (4, "loss"), (2, "loss")]


def test_no_gain_is_called_a_loss():
    assert choose([1.0, 0.0], seed=0, sample=0, extremes=5) == [(0, "gain")]


def test_equal_gains_come_in_the_order_given_and_nan_is_neither_gain_nor_loss():
    gains, rewards = [1.0, float("nan"), 1.0, -1.0, -1.0], [0.1, 9.0, 0.2, -0.1, -0.2]
    chosen = choose(gains, seed=0, sample=0, extremes=5, between_equals=rewards)
    assert chosen == [(2, "gain"), (0, "gain"), (4, "loss"), (3, "loss")]


@given(st.lists(st.integers(-3, 3), max_size=20), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))
def test_a_post_is_shown_once_and_a_seed_shows_the_same(gains, sample, extremes, seed):
    chosen = choose(gains, seed, sample, extremes)
    assert len({index for index, _ in chosen}) == len(chosen)
    assert sum(kind == "sample" for _, kind in chosen) == min(sample, len(gains))
    assert chosen == choose(gains, seed, sample, extremes)


@given(st.text(alphabet="ab c", max_size=20), st.text(alphabet="ab c", max_size=20))
def test_both_texts_can_be_read_back_from_the_differences(before, after):
    runs = differences(before, after)
    assert " ".join(text for kind, text in runs if kind != "added").split() == before.split()
    assert " ".join(text for kind, text in runs if kind != "removed").split() == after.split()
