"""Agreement by hand, and values that are not defined are explained."""

import json

import numpy as np
import pytest

from minirlhf.feedback.agreement import CHANCELESS, LACKING, agreement, attention, consistency, position, table
from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, digest
from minirlhf.statistics.bootstrap import Bootstrap

CHOICES = {"1": "left", "0": "right", "t": "tie", "s": "skip"}


def votes_of(**said: str) -> Votes:
    """Votes by voter, a letter a pair: 1 the first won, 0 the second, t a tie, s a skip, - not asked."""
    found = Votes()
    for voter, letters in said.items():
        for number, letter in enumerate(letters):
            pair = Pair(prompt=str(number), summaries=(Summary(text="a"), Summary(text="b")))
            found.pairs[pair.id] = pair
            if letter != "-":
                key = digest(voter, str(number))
                found.cast[key] = Vote(
                    id=key, voter=voter, pair=pair.id, left=0, choice=CHOICES[letter], shown=pair.shown(0)
                )
    return found


def test_kappa_by_hand():
    # 20 pairs: both first 8, both second 7, apart 5. Observed .75; chance .55 * .5 + .45 * .5 = .5: kappa .5
    found = agreement(votes_of(anna="1" * 11 + "0" * 9, ben="1" * 8 + "0" * 10 + "1" * 2), Bootstrap(0, 200))
    assert found["pairs"] == 20
    assert found["percent"]["value"] == 0.75 and 0.5 < found["percent"]["low"] < 0.75 < found["percent"]["high"] < 1
    assert found["kappa"]["value"] == pytest.approx(0.5)
    assert found["kappa"]["low"] < 0.5 < found["kappa"]["high"]


def test_alpha_by_hand():
    # Krippendorff 2011, two coders and binary data: 10 units, coincidences 0-0 10, 0-1 4, 1-0 4, 1-1 2: alpha .095
    found = agreement(votes_of(anna="0100000010", ben="1110010000"), Bootstrap(0, 50))
    assert found["alpha"]["value"] == pytest.approx(0.095, abs=5e-4)


def test_more_voters_and_gaps_have_no_kappa():
    found = agreement(votes_of(anna="11t0-", ben="110-1", carl="1-0t1"), Bootstrap(0, 50))
    assert "kappa" not in found and found["pairs"] == 5
    assert found["percent"]["value"] == pytest.approx((3 + 1 + 1 + 0 + 1) / (3 + 1 + 3 + 1 + 1))
    assert found["alpha"]["low"] <= found["alpha"]["value"] <= found["alpha"]["high"]


def test_what_is_not_defined_says_why():
    assert agreement(votes_of(anna="1101"), Bootstrap(0, 50))["alpha"] == {"value": None, "why": LACKING}
    assert agreement(votes_of(anna="11--", ben="--11"), Bootstrap(0, 50))["percent"]["why"] == LACKING
    alike = agreement(votes_of(anna="111", ben="111"), Bootstrap(0, 50))
    assert alike["kappa"] == alike["alpha"] == {"value": None, "why": CHANCELESS}
    assert alike["percent"]["value"] == 1 and alike["percent"]["low"] < 0.5  # three votes are no certainty
    assert consistency(votes_of(anna="1"))["percent"]["value"] is None
    assert position(votes_of(anna="ts"))["value"] is None
    json.dumps(alike, allow_nan=False)


def test_skips_are_not_asked_and_ties_are_a_kind_of_their_own():
    told = table(votes_of(anna="1st", ben="0t1").counted())
    np.testing.assert_array_equal(np.sort(told, axis=0)[:2], [[0.5, 0], [1, 0.5]])
    assert np.isnan(told).sum() == 1


def test_sides():
    assert position(votes_of(anna="1110t"))["value"] == 0.75


def test_agreement_with_oneself():
    votes = votes_of(anna="10")
    for number, (vote, choice) in enumerate(zip(list(votes.cast.values()), ("right", "right"), strict=True)):
        key = digest("again", str(number))
        again = {"id": key, "left": 1, "choice": choice, "repeat": True, "shown": votes.pairs[vote.pair].shown(1)}
        votes.cast[key] = vote.model_copy(update=again)
    found = consistency(votes)  # the first one again (the sides are swapped), the second one otherwise
    assert found["pairs"] == 2 and found["percent"]["value"] == 0.5


def test_attention_is_told_by_voter():
    votes = votes_of(anna="1111", ben="10ts")
    votes.pairs = {key: pair.model_copy(update={"known": 0}) for key, pair in votes.pairs.items()}
    found = attention(votes)
    assert {voter: (row["pairs"], row["percent"]["value"]) for voter, row in found.items()} == {
        "anna": (4, 1.0),
        "ben": (3, pytest.approx(1 / 3)),
    }
    assert agreement(votes, Bootstrap(0, 50))["pairs"] == 0
