import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.reward_modeling.labels import agreement, position, slices
from minirlhf.reward_modeling.quality import summaries_of
from minirlhf.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap(0, 200)


def label(prompt, first_won, voter=None):
    chosen, rejected = (" a", " b") if first_won else (" b", " a")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | ({"voter": voter} if voter else {})


def test_agreement_of_labels_bounds_what_anybody_can_reach():
    # Of p three labels, two alike: one of three pairs of labels agrees. Of q two that agree; r has one label.
    rows = [label("p", 1), label("p", 1), label("p", 0), label("q", 0), label("q", 0), label("r", 1)]
    found = agreement(rows, BOOTSTRAP)
    assert found["pairs"] == 2
    assert found["agreement"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["ceiling"] == {
        "low": pytest.approx(2 / 3, abs=1e-6),
        "high": pytest.approx((1 + math.sqrt(1 / 3)) / 2),
    }
    assert agreement(rows[3:4] + rows[5:], BOOTSTRAP) is None


def test_data_without_equal_rows_tell_no_ceiling():
    """Of rows that come once only those come again whose labels differ: as in pairs asked about in both orders."""
    found = agreement([label("p", 1), label("p", 0), label("q", 1)], BOOTSTRAP)
    assert (found["pairs"], found["agreement"]["value"], found["ceiling"]) == (1, 0, None)


def test_a_voter_who_votes_twice_says_nothing_of_others():
    twice = [label("p", 1, "ann"), label("p", 1, "ann")]
    assert agreement(twice, BOOTSTRAP) is None
    found = agreement([*twice, label("p", 0, "bob")], BOOTSTRAP)
    assert found["agreement"]["value"] == 0 and found["ceiling"] == {"low": 0.5, "high": 0.5}


@given(st.lists(st.floats(0.5, 1), min_size=1, max_size=20))
def test_the_ceiling_lies_between_its_bounds(sides):
    """For any shares q by which a pair's labels fall to the likelier side."""
    q = np.array(sides)
    agreed = float((q**2 + (1 - q) ** 2).mean())
    assert agreed - 1e-9 <= q.mean() <= (1 + math.sqrt(max(2 * agreed - 1, 0))) / 2 + 1e-9


def test_place():
    rows = [
        label("p", 1) | {"first": "chosen"},
        label("q", 1) | {"first": "chosen"},
        label("r", 0) | {"first": "rejected"},
    ]
    rows.append(label("s", 0))  # which does not say
    assert position(rows, None, BOOTSTRAP)["first_chosen"]["value"] == pytest.approx(2 / 3)
    found = position(rows, np.array([1.0, 0.5, 0.0, 1.0]), BOOTSTRAP)
    assert found["accuracy_first_chosen"]["value"] == 0.75 and found["accuracy_second_chosen"]["value"] == 0
    assert position(rows[3:], None, BOOTSTRAP) is None and position(rows[3:], np.array([1.0]), BOOTSTRAP) is None


def test_slices_are_of_the_rows_they_name():
    rows = [
        {
            "prompt": "p" * (1 + number),
            "chosen": " aa" if number % 2 else " a",
            "rejected": " bb" if number < 30 else " b",
            "judge": "ann" if number < 40 else "bob" if number < 55 else "",
        }
        for number in range(60)
    ]
    lengths = {summary: len(summary[1]) for summary in summaries_of(rows)}
    found = {(kind, group): indices.tolist() for kind, group, indices in slices(rows, lengths, ["judge"])}
    assert found.pop(("judge", "ann")) == list(range(40))  # bob's 15 are too few
    assert sorted(sum((of for (kind, _), of in found.items() if kind.startswith("prompt")), [])) == list(range(60))
    assert set(found) == {key for key in found if key[0].startswith("prompt")}  # 15 of each length
    lengths = {summary: float(summary[1] == " aa") for summary in lengths}
    found = {(kind, group): indices.tolist() for kind, group, indices in slices(rows, lengths, [])}
    assert found["chosen is", "the longer"] == list(range(1, 60, 2)) and ("chosen is", "the shorter") not in found
