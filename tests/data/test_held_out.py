import json

import pytest

from minirlhf.data.held_out import read_comparisons
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_jsonl

GOOD = {"prompt": "my cat left.", "chosen": "cat left", "rejected": "dog left"}
OPENAI = {
    "info": {"subreddit": "aww", "title": "t", "post": "my cat left."},
    "summaries": [{"text": " x"}, {"text": " y"}],
    "choice": 1,
    "worker": "w1",
}
CHAT = {
    "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
    "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No."}],
}


def test_rows_are_put_right_and_what_comes_again_stays(tmp_path):
    marked = {**GOOD, "chosen": "TL;DR: cat left</s>", "rejected_ended": False, "kind": 3}
    rows = [GOOD, GOOD, marked, {**GOOD, "rejected": "cat  left"}, {"prompt": "x"}, {**GOOD, "chosen": " "}]
    write_jsonl(tmp_path / "some.jsonl", rows)
    found = read_comparisons(str(tmp_path / "some.jsonl"), columns=["kind"])
    assert [row["chosen"] for row in found.rows] == [" cat left"] * 3
    assert [row["kind"] for row in found.rows] == ["", "", "3"] and found.rows[2]["rejected_ended"] is False
    assert found.refused == {"identical": 1, "missing_field": 1, "empty_completion": 1}
    assert found.changed == {"end_marker": 1, "heading": 1}


def test_who_voted_and_what_was_first_is_kept(tmp_path):
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(OPENAI | {"choice": choice}) + "\n" for choice in (0, 1)))
    rows = read_comparisons(str(tmp_path / "votes.jsonl")).rows
    assert [(row["chosen"], row["first"], row["voter"], row["subreddit"]) for row in rows] == [
        (" x", "chosen", "w1", "aww"),
        (" y", "rejected", "w1", "aww"),
    ]


def test_a_chat_needs_no_template(tmp_path):
    write_jsonl(tmp_path / "chats.jsonl", [CHAT])
    [row] = read_comparisons(str(tmp_path / "chats.jsonl")).rows
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Hi", "Yes?", "No.")
    assert row["prompt"].messages == CHAT["chosen"][:1]


def test_a_folder_gives_what_was_held_out(tmp_path):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{**GOOD, "prompt": split}] * 2)
    assert {row["prompt"] for row in read_comparisons(str(tmp_path)).rows} == {"validation"}
    assert {row["prompt"] for row in read_comparisons(str(tmp_path), "train", limit=1).rows} == {"train"}
    with pytest.raises(UserError, match="no split test; it has train, validation"):
        read_comparisons(str(tmp_path), "test")


def test_the_embedded_world_knows_the_truth():
    rows = read_comparisons("embedded", limit=3).rows
    assert len(rows) == 3 and all("record" in row for row in rows)


def test_what_cannot_be_examined_is_refused_in_a_line(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [GOOD])
    write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "x"}])
    (tmp_path / "notes.md").write_text("no rows")
    for name, columns, message in (
        ("a.jsonl", ["judge"], "no column judge in its rows"),
        ("bad.jsonl", [], r"no comparison that can be used \(refused: 1 missing_field\)"),
        ("notes.md", [], "expected JSON lines, JSON, CSV or parquet"),
        ("nowhere/at/all", [], "no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_comparisons(str(tmp_path / name), columns=columns)
