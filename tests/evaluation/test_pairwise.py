import numpy as np
import pytest

from minirlhf.evaluation.pairwise import NotJudged, PairwiseJudge, checked, position_bias
from minirlhf.runtime.errors import UserError
from minirlhf.statistics.bootstrap import Bootstrap

PROMPTS, ONES, OTHERS = ["p", "q", "r"], ["one", "three", "five!"], ["four", "four", "seven"]


def longer(prompts, first, second):
    return [float(np.sign(len(a) - len(b)) / 2 + 0.5) for a, b in zip(first, second, strict=True)]


def always_first(prompts, first, second):
    return [1.0] * len(first)


def test_a_fair_judge_says_the_same_in_both_orders():
    found = PairwiseJudge(longer).compare(PROMPTS, ONES, OTHERS)
    assert found.wins.tolist() == [0.0, 1.0, 0.5] and found.posts == 3
    bias = position_bias([found], Bootstrap(0, 100))
    assert (bias.flipped.value, bias.first_place.value, bias.first_place.high) == (0.0, 0.5, 0.5)


def test_a_judge_that_always_takes_the_first_place_decides_nothing():
    found = PairwiseJudge(always_first).compare(PROMPTS, ONES, OTHERS)
    assert found.wins.tolist() == [0.5, 0.5, 0.5]
    bias = position_bias([found], Bootstrap(0, 100))
    assert (bias.flipped.value, bias.first_place.value) == (1.0, 1.0)


def test_orders_are_averaged_by_hand():
    # Shown (one, four): a tie; shown (four, one): the first, four. So one has half of one verdict: 0.25.
    answers = [0.5, 1.0]
    found = PairwiseJudge(lambda *pair: answers).compare(["p"], ["one"], ["four"])
    assert found.wins.tolist() == [0.25]
    bias = position_bias([found], Bootstrap(0, 100))
    assert (bias.flipped.value, bias.first_place.value) == (1.0, 0.75)


def test_equal_summaries_tie_and_nobody_is_asked():
    asked = []
    judge = PairwiseJudge(lambda p, a, b: asked.append(a) or [1.0] * len(a))
    found = judge.compare(["p", "q"], [" same", "one"], ["same ", "two"])
    assert asked == [["one", "two"]]  # each order of the pair that differs
    assert found.wins.tolist() == [0.5, 0.5] and found.told.tolist() == [False, True]
    alike = judge.compare(["p"], ["same"], ["same"])
    assert position_bias([alike], Bootstrap(0, 100)) is None and len(asked) == 1


def test_a_pair_counts_when_both_orders_were_judged():
    answers = [1.0, NotJudged("refused"), 1.0, 0.0, 1.0, NotJudged("unparsable", "hm")]
    found = PairwiseJudge(lambda *pair: answers).compare(PROMPTS, ONES, OTHERS)
    np.testing.assert_array_equal(found.wins, [1.0, np.nan, np.nan])
    assert found.not_judged == {"refused": 1, "unparsable": 1}
    bias = position_bias([found, found], Bootstrap(0, 100))
    assert (bias.flipped.value, bias.first_place.value) == (0.0, 0.5)


def test_only_the_first_posts_are_judged():
    found = PairwiseJudge(longer, max_posts=2).compare(PROMPTS, ONES, OTHERS)
    np.testing.assert_array_equal(found.wins, [0.0, 1.0, np.nan])
    assert found.posts == 2 and found.not_judged == {}


def test_a_judge_that_never_gives_a_verdict_is_an_error_that_shows_what_it_said():
    judge = PairwiseJudge(lambda p, a, b: [NotJudged("unparsable", "I am\na bot")] * len(a))
    with pytest.raises(UserError, match=r"no verdict on any of 3 pairs \(3 unparsable\); it said 'I am\\na bot'"):
        judge.compare(PROMPTS, ONES, OTHERS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, a, b: [1.0], "judge mine returned 1 answers for 3 pairs"),
        (lambda p, a, b: 1.0, "judge mine returned float for 3 pairs"),
        (lambda p, a, b: [1, 0.7, 0], "judge mine returned 0.7 for a pair; expected 1, 0.5 or 0"),
        (lambda p, a, b: [1, None, 0], "judge mine returned None"),
        (lambda p, a, b: 1 / 0, "judge mine raised ZeroDivisionError"),
    ],
)
def test_what_is_no_verdict_is_refused(function, message):
    with pytest.raises(UserError, match=message):
        checked(function, "mine")(PROMPTS, ONES, OTHERS)


def test_a_function_may_return_an_array():
    assert checked(lambda p, a, b: np.array([1, 0.5, 0]), "mine")(PROMPTS, ONES, OTHERS) == [1.0, 0.5, 0.0]
