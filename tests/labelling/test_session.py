"""What the page is told, and what is taken from it."""

import json
import secrets

import pytest

from minirlhf.feedback.pairs import Queue
from minirlhf.feedback.votes import read_votes
from minirlhf.labelling.session import Refused, Session, sequence
from tests.labelling.conftest import some_pairs


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path, Queue(some_pairs(), 1.0), wanted=300)


def said(state: dict, choice: str = "left", **changes) -> dict:
    """What the page sends when a voter answers."""
    ask = state["ask"]
    keys = ("pair", "left", "shown", "rule", "repeat")
    return {"id": secrets.token_hex(16), "choice": choice, "seconds": 1.5} | {key: ask[key] for key in keys} | changes


def test_a_vote_is_on_the_disk_when_the_next_pair_comes(session, tmp_path):
    first = session.next("anna")
    second = session.vote("anna", said(first))
    (vote,) = read_votes(tmp_path).cast.values()
    assert (vote.pair, vote.voter, vote.seconds) == (first["ask"]["pair"], "anna", 1.5)
    assert second["ask"]["pair"] != first["ask"]["pair"]
    assert (second["done"], second["decided"], second["wanted"]) == (1, 1, 300)


def test_nothing_says_who_wrote_what(session):
    told = json.dumps([session.vote("anna", said(session.next("anna"))) for _ in range(20)])
    assert not [name for name in ("ppo", "sft", "reference", "record", "system") if name in told]


def test_a_vote_that_is_sent_twice_counts_once(session, tmp_path):
    vote = said(session.next("anna"))
    assert session.vote("anna", vote) == session.vote("anna", vote)
    again = Session(tmp_path, session.queue, wanted=300)  # the server was killed before it could answer
    assert again.vote("anna", vote) == session.next("anna")
    assert len(read_votes(tmp_path).cast) == 1


def test_undo_shows_the_pair_again_as_often_as_one_likes(session, tmp_path):
    shown = [session.next("anna")]
    for choice in ("left", "skip", "tie"):
        shown.append(session.vote("anna", said(shown[-1], choice)))
    session.vote("ben", said(session.next("ben")))
    key = secrets.token_hex(16)
    assert session.undo("anna", key)["ask"] == session.undo("anna", key)["ask"] == shown[2]["ask"]
    assert session.undo("anna", secrets.token_hex(16))["ask"] == shown[1]["ask"]
    assert session.undo("anna", secrets.token_hex(16))["ask"] == shown[0]["ask"]
    assert session.undo("anna", secrets.token_hex(16))["done"] == 0  # nothing is left to take back
    assert [vote.voter for vote in read_votes(tmp_path).cast.values()] == ["ben"]
    assert (tmp_path / "votes.jsonl").read_text().count("\n") == 7  # appended, nothing rewritten


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pair": "0" * 32}, "pair: not one of this session"),
        ({"choice": "best"}, "choice: Input should be"),
        ({"id": "short"}, "id: String should match"),
        ({"left": 2}, "left: Input should be"),
        ({"repeat": True}, "pair: voted on already"),
        ({"shown": "0" * 32}, "something_else_shown"),
        ({"seconds": float("nan")}, "seconds: Input should be"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_kept(session, tmp_path, changes, reason):
    with pytest.raises(Refused, match=reason):
        session.vote("anna", said(session.next("anna"), **changes))
    assert not read_votes(tmp_path).cast


def test_a_swapped_side_is_refused(session):
    state = session.next("anna")
    swapped = 1 - state["ask"]["left"]
    shown = session.pairs[state["ask"]["pair"]].shown(swapped)
    with pytest.raises(Refused, match="left: not as it was shown"):
        session.vote("anna", said(state, left=swapped, shown=shown))


def test_a_second_window_of_one_voter_doubles_nothing(session, tmp_path):
    state = session.next("anna")
    session.vote("anna", said(state))
    with pytest.raises(Refused, match="another window"):
        session.vote("anna", said(state, "right"))
    assert len(read_votes(tmp_path).cast) == 1


def test_a_repeat_is_taken_once_with_its_sides_swapped(session, tmp_path):
    state = session.next("anna")
    while not state["ask"]["repeat"]:
        state = session.vote("anna", said(state))
    session.vote("anna", said(state))
    votes = read_votes(tmp_path)
    ((first, again),) = votes.repeats()
    assert first.left == 1 - again.left and len(votes.counted()) == len(votes.cast) - 1


def test_the_page_cannot_tell_a_pair_whose_answer_is_known(tmp_path):
    pairs = some_pairs(60)
    session = Session(tmp_path, Queue(pairs[:40], 1.0, checks=[pair.with_answer(0) for pair in pairs[40:]]), wanted=300)
    state, told = session.next("anna"), set()
    for _ in range(30):
        told.add(tuple(state["ask"]))
        assert "known" not in json.dumps(state) and state["ask"]["rule"] == "random"
        state = session.vote("anna", said(state))
    (right,) = read_votes(tmp_path).checks().values()
    assert len(right) == 2 and len(told) == 1
    assert state["decided"] == 30 - 2 - 2  # without two checks and two repeats


def test_nothing_left_is_said(tmp_path):
    session = Session(tmp_path, Queue(some_pairs(2), 1.0))
    state = session.next("anna")
    for _ in range(2):
        state = session.vote("anna", said(state))
    assert state["ask"] is None and state["done"] == 2


def test_a_sequence_is_what_a_voter_would_be_asked(session):
    asks = sequence(session.queue, "anna", 20)
    state = session.next("anna")
    for ask in asks:
        assert (state["ask"]["pair"], state["ask"]["left"], state["ask"]["repeat"]) == (
            ask.pair.id,
            ask.left,
            ask.repeat,
        )
        state = session.vote("anna", said(state))
