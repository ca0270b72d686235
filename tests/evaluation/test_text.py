import doctest

import pytest

from minirlhf.evaluation import examples, text


@pytest.mark.parametrize("module", [text, examples])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_coverage_and_density_by_hand():
    # Fragments "the dog" (2) and "ran away" (2) of 6 words: coverage 4/6, density (4 + 4) / 6.
    copied = text.coverage_and_density("The dog barked, then ran away.", "the dog quickly and ran away")
    assert copied == pytest.approx((4 / 6, 8 / 6))


def test_greedy_fragments_take_the_longest_match():
    post = "a b x a b c".split()
    assert text.extractive_fragments(post, "a b c".split()) == [3]


def test_a_copy_has_coverage_one_and_its_length_as_density():
    assert text.coverage_and_density("one two three", "one two three") == (1.0, 3.0)
    assert text.coverage_and_density("one two three", "") == (0.0, 0.0)


def test_distinct_and_duplicates_by_hand():
    assert text.distinct(["a b", "a c"], 1) == 3 / 4
    assert text.distinct(["a b", "a b"], 2) == 1 / 2
    assert text.distinct([""], 2) == 0.0
    assert text.duplicates(["Yes.", "yes", "no"]) == pytest.approx(1 / 3)


def test_describe_gives_one_number_a_summary():
    numbers = text.describe(["the dog ran", "x"], ["the dog", ""])
    assert {key: value.tolist() for key, value in numbers.items()} == {
        "words": [2.0, 0.0],
        "coverage": [1.0, 0.0],
        "density": [2.0, 0.0],
        "repetition": [0.0, 0.0],
    }
