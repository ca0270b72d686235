import json
import os

import pytest

from minirlhf.data.prepare import describe, length_histogram, prepare, summarize
from minirlhf.data.sources import Source
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_jsonl
from minirlhf.settings.data import DataParams


@pytest.fixture
def own(tmp_path, monkeypatch, settings, small_bpe):
    """Write splits of posts and comparisons into folders, and prepare them; returns tallies by source and split."""
    monkeypatch.chdir(tmp_path)

    def run(posts, comparisons):
        sources = []
        data = DataParams(**settings["data"] | {"posts": "posts", "comparisons": "comparisons"})
        for what, splits in (("posts", posts), ("comparisons", comparisons)):
            os.makedirs(what, exist_ok=True)
            for split, rows in splits.items():
                with open(f"{what}/{split}.jsonl", "w") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
            sources.append(Source(what, data, {"kind": "folder", "name": what}))
        return prepare(sources, data, small_bpe, tmp_path / "prepared")

    return run


def posts(*names):
    return [{"prompt": name, "completion": "a cat"} for name in names]


def pairs(*names):
    return [{"prompt": name, "chosen": "a cat", "rejected": "a dog"} for name in names]


POSTS = {"train": posts("a", "b", "b"), "validation": posts("a", "c"), "test": posts("c", "d", "e")}
PAIRS = {"train": pairs("a", "d", "x"), "validation": pairs("x", "y"), "test": pairs("d", "y")}


def test_no_split_shares_a_prompt_with_what_it_is_held_out_from(own, tmp_path):
    tallies = own(POSTS, PAIRS)
    prompts = {
        f"{what}/{split}": "".join(row["prompt"] for row in read_jsonl(tmp_path / f"prepared/{what}/{split}.jsonl"))
        for what in ("posts", "comparisons")
        for split in ("train", "validation", "test")
    }
    assert prompts == {
        "posts/train": "ab",
        "posts/validation": "c",
        "posts/test": "de",
        "comparisons/train": "ax",
        "comparisons/validation": "y",
        "comparisons/test": "d",
    }
    assert describe(tallies["posts"]["train"].refused) == "1 duplicate"
    assert describe(tallies["comparisons"]["train"].refused) == "1 held_out"


def test_the_metrics_and_the_histogram(own):
    tallies = own(POSTS, PAIRS)
    metrics = summarize(tallies)
    assert metrics["posts"]["train"] == {"kept": 2, "truncated": 0, "refused": {"duplicate": 1}, "changed": {}}
    assert metrics["posts"]["tokens"] == {
        "prompt": {"median": 1, "p95": 1, "max": 1},
        "completion": {"median": 3, "p95": 3, "max": 3},
    }
    assert set(metrics["comparisons"]["tokens"]) == {"prompt", "chosen", "rejected"}
    assert metrics["comparisons"]["summaries_of_a_post"] == {"median": 2, "p95": 2, "max": 2}
    assert "summaries_of_a_post" not in metrics["posts"]
    three = {"prompt": "x", "chosen": "a cat", "rejected": "a cow"}  # one of its two is known
    metrics = summarize(own(POSTS, PAIRS | {"train": [*PAIRS["train"], three]}))
    assert metrics["comparisons"]["summaries_of_a_post"] == {"median": 2, "p95": 2, "max": 3}
    tallies["posts"]["train"].tokens["prompt"] = [3, 64, 65, 99]
    rows = [row for row in length_histogram(tallies) if (row["source"], row["column"]) == ("posts", "prompt")]
    assert {row["tokens"]: row["share"] for row in rows if row["share"]} == {0: 0.25, 64: 0.5, 96: 0.25}
    assert len(rows) <= 32


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "data.posts: posts: the train split is empty"),
        ([{"prompt": "a", "text": "b"}], "no completion in the train split: its columns are prompt, text"),
        (posts("", " "), "no usable row in the train split: refused 2 empty_prompt"),
    ],
)
def test_a_split_without_a_usable_row_is_named_and_nothing_is_left(own, tmp_path, train, message):
    with pytest.raises(UserError, match=message):
        own(POSTS | {"train": train}, PAIRS)
    assert os.listdir(tmp_path / "prepared") == []
