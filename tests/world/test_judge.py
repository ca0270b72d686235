"""The gold judge on hand-written summaries of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.world.grammar import FILLER_CLAUSES, VALUES
from minirlhf.world.judge import BEST_SCORE, WORD_LIMIT, judge, read_clause

RECORD = {
    "relation": "sister",
    "verb": "broke",
    "object": "laptop",
    "time": "last weekend",
    "feeling": "betrayed",
    "wish": "an apology",
}
COMPLETE = "my sister broke my laptop last weekend. i feel betrayed and i want an apology."

# summary, score, the parts that are not 0
CASES = {
    "complete": (COMPLETE, 6, {"covered": 6}),
    "complete, shouted": (COMPLETE.upper(), 6, {"covered": 6}),
    "complete, leading space and line breaks": ("\n " + COMPLETE.replace(" ", "\n"), 6, {"covered": 6}),
    "other words for the same": (
        "last weekend my sister broke my laptop. i am so betrayed about it. all i want is an apology.",
        6,
        {"covered": 6},
    ),
    "missing feeling and wish": ("so my sister broke my laptop last weekend.", 4, {"covered": 4}),
    "vague": ("someone messed with my stuff.", 0, {}),
    "vague in one place": ("my sister broke my stuff.", 2, {"covered": 2}),
    "wrong fact": (COMPLETE.replace("laptop", "guitar"), 4, {"covered": 5, "wrong": 1}),
    "every fact wrong": (
        "my boss sold my kettle in june. i feel numb. i want a refund.",
        -6,
        {"wrong": 6},
    ),
    "right and wrong": (
        COMPLETE + " i feel furious.",
        5,
        {"covered": 6, "wrong": 1},
    ),
    "filler": ("long story short. " + COMPLETE, 5.5, {"covered": 6, "filler": 1}),
    "only filler": ("sorry for the rant. thanks for reading.", -1, {"filler": 2}),
    "repeated clause": (COMPLETE + " i feel betrayed.", 5.5, {"covered": 6, "repeated": 1}),
    "everything said twice": (
        f"{COMPLETE} {COMPLETE}",
        6 - 6 * 0.5,
        {"covered": 6, "repeated": 6},
    ),
    "ungrammatical": ("sister my broke laptop. i feel betrayed.", 0, {"covered": 1, "unparsable": 1}),
    "broken off": ("my sister broke my laptop last weekend. i feel", 3, {"covered": 4, "unparsable": 1}),
    "keywords": ("sister broke laptop last weekend betrayed an apology", -1, {"unparsable": 1}),
    "keywords as a list": (
        "sister, broke, laptop, last weekend, betrayed, an apology.",
        -6,
        {"unparsable": 6},
    ),
    "every value of a slot": (
        " ".join(f"i feel {value}." for value in VALUES["feeling"]),
        # one covered, 23 wrong, 24 x 3 = 72 words: 32 beyond the limit of 40
        1 - 23 - 3.2,
        {"covered": 1, "wrong": 23, "over_length": 32},
    ),
    "empty": ("", 0, {}),
    "only punctuation": ("... !?", 0, {}),
    "another language": ("mi hermana rompió mi portátil 😀", -1, {"unparsable": 1}),
    "the post's own words": ("they broke my laptop without asking.", -1, {"unparsable": 1}),
    "a special token": (COMPLETE + "<|endoftext|>", 4, {"covered": 5, "unparsable": 1}),
    "over the word limit": (
        COMPLETE + " it is a whole mess." * 6,
        # 15 + 30 = 45 words
        6 - 3 - 0.5,
        {"covered": 6, "filler": 6, "over_length": 5},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_judge(name):
    summary, score, parts = CASES[name]
    judgement = judge(summary, RECORD)
    assert {part: count for part, count in judgement.parts.items() if count} == parts
    assert judgement.score == pytest.approx(score)


def test_a_summary_that_never_ended_loses_two():
    assert judge(COMPLETE, RECORD, ended=False).score == 4


def test_facts_by_slot():
    facts = judge("my sister sold my laptop. i feel betrayed. i feel sad.", RECORD).facts
    assert facts == {
        "relation": "covered",
        "verb": "wrong",
        "object": "covered",
        "time": "missing",
        "feeling": "wrong",
        "wish": "missing",
    }


def test_no_value_can_be_read_two_ways():
    """Every value is a phrase of one slot only, and none holds what the judge splits sentences at."""
    values = [value for group in VALUES.values() for value in group]
    assert len(values) == len(set(values))
    assert not any(" and " in value or set(value) & set(".?!,") for value in (*values, *FILLER_CLAUSES))


def test_read_clause():
    assert read_clause("so my boss hid my tent on friday") == {
        "relation": "boss", "verb": "hid", "object": "tent", "time": "on friday",
    }  # fmt: skip
    assert read_clause("thanks for reading") == {}
    assert read_clause("my tent hid my boss") is None


@given(st.text(), st.booleans())
def test_any_text_is_judged(summary, ended):
    assert judge(summary, RECORD, ended).score <= BEST_SCORE


@given(st.text(" \n\t.?!,", max_size=WORD_LIMIT), st.booleans())
def test_a_summary_without_words_scores_nothing(summary, ended):
    assert judge(summary, RECORD, ended).score == (0 if ended else -2)


@given(st.lists(st.sampled_from(COMPLETE.replace(".", " .").split() + list(FILLER_CLAUSES)), max_size=40))
def test_no_shuffle_of_words_beats_the_complete_summary(words):
    assert judge(" ".join(words), RECORD).score <= BEST_SCORE
