"""Votes on the disk: what counts, what is refused, and what a kill or a full disk leaves."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.feedback.votes import Pair, Summary, Undo, Vote, Votes, add, digest, keep, read_votes
from minirlhf.runtime.errors import UserError
from tests.conftest import SOAK


def pair(post: str = "post", **options) -> Pair:
    return Pair(prompt=post, summaries=(Summary(text=" one"), Summary(text=" two", ended=False)), **options)


def vote(
    number: int, choice: str = "left", voter: str = "anna", of: Pair | None = None, left: int = 0, **options
) -> Vote:
    of = of or pair()
    key = digest(str(number))
    return Vote(id=key, voter=voter, pair=of.id, left=left, choice=choice, shown=of.shown(left), **options)


@pytest.mark.parametrize(
    ("choice", "left", "won"),
    [("left", 0, 1.0), ("left", 1, 0.0), ("right", 0, 0.0), ("right", 1, 1.0), ("tie", 1, 0.5), ("skip", 0, None)],
)
def test_who_won(choice, left, won):
    assert vote(1, choice, left=left).first_won == won


def test_a_vote_is_a_comparison_with_who_ended(tmp_path):
    world = pair("p", record={"who": "dog"})
    add(tmp_path, Votes(), [vote(1, "right", of=world, left=0)], {world.id: world})
    row = {"prompt": "p", "chosen": " two", "rejected": " one", "chosen_ended": False, "rejected_ended": True}
    assert read_votes(tmp_path).comparisons("train") == [row | {"record": {"who": "dog"}}]
    assert read_votes(tmp_path).comparisons("test") == []


def test_ties_skips_repeats_and_what_was_taken_back_are_no_comparisons(tmp_path):
    pairs = [pair(name) for name in "abcde"]
    known = {each.id: each for each in pairs}
    cast = [
        vote(i, of=each, choice=choice)
        for i, (each, choice) in enumerate(zip(pairs, ("left", "tie", "skip", "left", "right"), strict=True))
    ]
    again = vote(9, "right", of=pairs[0], left=1, repeat=True)
    back = Undo(id=digest("back"), voter="anna", undo=cast[3].id)
    assert not add(tmp_path, Votes(), [*cast, again, back], known)
    found = read_votes(tmp_path)
    assert [row["prompt"] for row in found.comparisons("train")] == ["a", "e"]
    assert [v.pair for v in found.counted()] == [pairs[0].id, pairs[1].id, pairs[4].id]
    assert [(first.id, second.id) for first, second in found.repeats()] == [(cast[0].id, again.id)]


def test_two_voters_who_agree_weigh_twice_and_one_voter_who_votes_twice_does_not(tmp_path):
    votes = [vote(1), vote(2, voter="ben"), vote(3, "right")]
    add(tmp_path, Votes(), votes, {pair().id: pair()})
    assert [row["chosen"] for row in read_votes(tmp_path).comparisons("train")] == [" one", " one"]


def test_what_is_not_a_vote_is_refused_and_counted(tmp_path):
    other = vote(5).model_copy(update={"shown": "0" * 32})
    undo = Undo(id=digest("u"), voter="ben", undo=vote(1).id)  # of another's vote
    refused = add(tmp_path, Votes(), [vote(1), vote(1), vote(2, of=pair("unknown")), other, undo], {pair().id: pair()})
    assert refused == {"duplicate": 1, "unknown_pair": 1, "something_else_shown": 1, "undoes_nothing": 1}
    with open(tmp_path / "votes.jsonl", "a") as file:
        file.write('{"id": 3}\nnonsense\n\n' + vote(7, of=pair("unknown")).model_dump_json() + "\n")
    found = read_votes(tmp_path)
    assert list(found.cast) == [vote(1).id]
    assert found.refused == {"mistyped_field": 1, "not_json": 1, "unknown_pair": 1}


def test_a_torn_line_costs_itself_alone(tmp_path):
    votes = Votes()
    add(tmp_path, votes, [vote(1)], {pair().id: pair()})
    file = tmp_path / "votes.jsonl"
    file.write_bytes(file.read_bytes() + b'{"id":"12')  # a power cut within the next write
    votes = read_votes(tmp_path)
    add(tmp_path, votes, [vote(2, voter="ben")], {})
    assert [v.voter for v in read_votes(tmp_path).cast.values()] == ["anna", "ben"]
    assert read_votes(tmp_path).refused == {"not_json": 1}


def test_an_empty_folder_and_none_at_all_hold_no_vote(tmp_path):
    assert read_votes(tmp_path).cast == read_votes(tmp_path / "nowhere").cast == {}


def test_pairs_can_be_kept_before_anybody_votes(tmp_path):
    keep(tmp_path, read_votes(tmp_path), [pair(), pair()])
    keep(tmp_path, read_votes(tmp_path), [pair()])
    assert (tmp_path / "pairs.jsonl").read_text().count("\n") == 1
    assert not add(tmp_path, read_votes(tmp_path), [vote(1)], {})


def test_a_disk_that_takes_nothing_is_said_in_one_line(tmp_path):
    (tmp_path / "votes.jsonl").mkdir()
    with pytest.raises(UserError, match=r"votes.jsonl: cannot be (written|read)"):
        add(tmp_path, Votes(pairs={pair().id: pair()}), [vote(1)], {})


def test_an_attention_check_counts_for_nothing_but_its_voter(tmp_path):
    check = pair().with_answer(1)
    cast = [
        vote(1, "right", of=check),  # the second, and it stood on the right
        vote(2, "right", of=check, left=1, voter="ben"),
        vote(3, "tie", of=check, voter="carl"),
        vote(4, "skip", of=check, voter="dora"),
        vote(5, "left"),  # on the same texts, where nobody knows the answer
    ]
    assert not add(tmp_path, Votes(), cast, {check.id: check, pair().id: pair()})
    found = read_votes(tmp_path)
    assert found.checks() == {"anna": [True], "ben": [False], "carl": [False]}
    assert [counted.id for counted in found.counted()] == [cast[4].id]
    assert [row["chosen"] for row in found.comparisons("train")] == [" one"] and not found.repeats()


def test_only_the_texts_name_a_pair():
    assert pair(split="test").id == pair(record={"a": "b"}).id != pair("another").id
    assert len({pair().id, pair().with_answer(0).id, pair().with_answer(1).id}) == 3
    assert pair().shown(0) != pair().shown(1)


@given(st.lists(st.tuples(st.sampled_from(["vote", "undo"]), st.sampled_from("ab"), st.integers(0, 3)), max_size=30))
def test_what_is_read_is_what_was_noted(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("votes")
    pairs = {each.id: each for each in map(pair, "wxyz")}
    votes, last = Votes(), {}
    for number, (what, voter, index) in enumerate(steps):
        if what == "vote":
            record = vote(number, voter=voter, of=list(pairs.values())[index], repeat=bool(number % 2))
            last.setdefault(voter, []).append(record.id)
        elif last.get(voter):
            record = Undo(id=digest(str(number)), voter=voter, undo=last[voter].pop())
        else:
            continue
        assert not add(folder, votes, [record], pairs)
    found = read_votes(folder)
    assert (found.cast, found.known, found.refused) == (votes.cast, votes.known, {})
    assert set(found.cast) == {key for keys in last.values() for key in keys}


@pytest.mark.skipif(not SOAK, reason="measures time")
def test_a_hundred_thousand_votes_are_read_in_two_seconds(tmp_path):
    pairs = {each.id: each for each in (pair(f"{number} " + "word " * 200) for number in range(50_000))}
    cast = [
        vote(2 * i + j, voter=voter, of=each) for i, each in enumerate(pairs.values()) for j, voter in enumerate("ab")
    ]
    add(tmp_path, Votes(), cast, pairs)
    start = time.process_time()
    assert len(read_votes(tmp_path).cast) == 100_000
    assert time.process_time() - start < 2


def test_a_vote_is_on_the_disk_within_fifty_milliseconds(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor, sync=os.fsync: synced.append(sync(descriptor)))
    votes = Votes()
    add(tmp_path, votes, [vote(0)], {pair().id: pair()})
    synced.clear()
    start = time.perf_counter()
    add(tmp_path, votes, [vote(1, voter="ben")], {})
    assert time.perf_counter() - start < 0.05 or os.getloadavg()[0] > os.cpu_count()  # a busy machine proves nothing
    assert len(synced) == 1 and len(read_votes(tmp_path).cast) == 2
