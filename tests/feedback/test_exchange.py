"""Votes from other tools, and back."""

import json
from collections import Counter

import pytest

from minirlhf.data.shapes import COMPARISONS, to_shape
from minirlhf.feedback.exchange import read_given, to_openai, to_trl
from minirlhf.feedback.votes import Votes, add, read_votes
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_json, write_jsonl

PROMPT = "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:"
TRL = {"prompt": PROMPT, "chosen": " x", "rejected": " y"}
OPENAI = {
    "info": {"id": "t3_1", "post": "c", "title": "b", "subreddit": "a"},
    "summaries": [{"text": " y", "policy": "ref", "note": None}, {"text": " x", "policy": "sup4", "note": None}],
    "choice": 1,
    "worker": "w7",
    "batch": "batch3",
    "split": "train",
    "extra": {"confidence": 8},
}
LABEL_STUDIO = {
    "id": 1,
    "data": {"prompt": PROMPT, "answer1": "x", "answer2": "y"},
    "annotations": [
        {"completed_by": 3, "was_cancelled": False, "lead_time": 4.2,
         "result": [{"type": "pairwise", "from_name": "pw", "to_name": "a,b", "value": {"selected": "left"}}]},
        {"completed_by": {"id": 4, "email": "b@example.org"}, "was_cancelled": False,
         "result": [{"type": "choices", "value": {"choices": ["answer2"]}}]},
        {"completed_by": 5, "was_cancelled": True, "result": []},
    ],
}  # fmt: skip
FIELDS = {"prompt": PROMPT, "response-1": "x", "response-2": "y"}
ARGILLA = {
    "id": "r1",
    "status": "completed",
    "fields": FIELDS,
    "responses": {"preference": [{"value": "response-1", "user_id": "u1", "status": "submitted"},
                                 {"value": "tie", "user_id": "u2", "status": "submitted"},
                                 {"value": "response-2", "user_id": "u3", "status": "draft"}]},
}  # fmt: skip
RANKED = [{"value": "response-2", "rank": 2}, {"value": "response-1", "rank": 1}]
FLAT = {"id": "r1", "status": "completed", "_server_id": None, **FIELDS, "ranking.responses": [RANKED],
        "ranking.responses.users": ["u1"], "ranking.responses.status": ["submitted"]}  # fmt: skip


def taken(path) -> list[tuple]:
    """What the votes of a file say: (post, winner, voter)."""
    found = []
    for pair, vote in read_given(path, Counter()):
        winner = {1.0: 0, 0.0: 1, 0.5: None}[vote.first_won]
        found.append((pair.prompt, winner if winner is None else pair.summaries[winner].text, vote.voter))
    return found


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (TRL, [(" x", "imported")]),
        (OPENAI, [(" x", "w7")]),
        (LABEL_STUDIO, [(" x", "3"), (" y", "b@example.org")]),
        (ARGILLA, [(" x", "u1"), (None, "u2")]),
        (FLAT, [(" x", "u1")]),
    ],
)
def test_each_format(tmp_path, row, said):
    write_jsonl(tmp_path / "votes.jsonl", [row])
    write_json(tmp_path / "votes.json", [row])
    expected = [(PROMPT, *each) for each in said]
    assert taken(tmp_path / "votes.jsonl") == taken(tmp_path / "votes.json") == expected


def test_a_file_that_is_taken_twice_counts_once(tmp_path):
    write_jsonl(tmp_path / "given.jsonl", [TRL, LABEL_STUDIO])
    for _ in range(2):
        found = list(read_given(tmp_path / "given.jsonl", Counter()))
        add(tmp_path, read_votes(tmp_path), [vote for _, vote in found], {pair.id: pair for pair, _ in found})
    assert len(read_votes(tmp_path).cast) == 3


def test_openai_confidence_survives_the_way_there_and_back(tmp_path):
    write_jsonl(tmp_path / "given.jsonl", [OPENAI])
    pair, vote = next(read_given(tmp_path / "given.jsonl", Counter()))
    votes = Votes()
    add(tmp_path, votes, [vote], {pair.id: pair})
    (row,) = to_openai(votes)
    assert row["extra"] == {"confidence": 8} and row["worker"] == "w7"
    assert {key: row["info"][key] for key in ("post", "title", "subreddit")} == {
        "post": "c",
        "title": "b",
        "subreddit": "a",
    }
    assert to_shape(json.loads(json.dumps(row)), COMPARISONS) == TRL  # as `data.comparisons` reads that data set
    assert list(to_trl(votes)) == [TRL]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**TRL, "rejected": "x "}, "identical"),
        ({**TRL, "rejected": " "}, "empty"),
        ({**TRL, "rejected": None}, "missing_field"),
        ({**TRL, "rejected": "\ud800"}, "invalid_utf8"),
        ({**OPENAI, "info": {"subreddit": None, "title": "b", "post": "c"}}, "not_a_post"),
        ({**OPENAI, "choice": 7}, "mistyped_field"),
        ({"data": {"prompt": "p", "answer": "x"}, "annotations": [{"result": [{"value": {}}]}]}, "no_two_summaries"),
        ({**LABEL_STUDIO, "annotations": [{"result": [{"value": {"selected": "neither"}}]}]}, "unknown_choice"),
        ({"anything": "else"}, "unknown_format"),
        ({"id": "short", "shown": ""}, "mistyped_field"),
    ],
)
def test_what_is_no_vote_is_counted_by_its_reason(tmp_path, row, reason):
    (tmp_path / "given.json").write_text(json.dumps([TRL, row]))
    refused = Counter()
    assert len(list(read_given(tmp_path / "given.json", refused))) == 1
    assert refused == {reason: 1}


def test_a_file_of_something_else_is_said_so(tmp_path):
    write_json(tmp_path / "given.json", {"hello": 1})
    with pytest.raises(UserError, match="no votes of a known format"):
        list(read_given(tmp_path / "given.json", Counter()))
