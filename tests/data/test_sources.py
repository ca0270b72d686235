import json

import huggingface_hub
import pyarrow
import pytest
from pyarrow import parquet

from minirlhf.data.sources import Source, is_for_test
from minirlhf.runtime.errors import UserError
from minirlhf.settings.data import DataParams

FOLDER = {"kind": "folder", "name": "own", "sha256": ""}


@pytest.fixture
def own(tmp_path, monkeypatch, settings):
    """A source of posts: a folder with a train and a validation split of 40 rows each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for split in ("train", "validation"):
        rows = [{"prompt": f"{split} {number}", "completion": "c"} for number in range(40)]
        (tmp_path / "own" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataParams(**settings["data"] | {"posts": "own", "comparisons": "own", "max_test": None})
    return lambda: Source("posts", data, FOLDER)


def prompts(source, split):
    return [row["prompt"] for row in source.rows(split)]


def test_validation_is_halved_where_there_is_no_test_split(own):
    validation, test = prompts(own(), "validation"), prompts(own(), "test")
    assert sorted(validation + test) == sorted(f"validation {number}" for number in range(40))
    assert 10 < len(test) < 30
    assert prompts(own(), "train") == [f"train {number}" for number in range(40)]
    assert own().limit("train") == 60 and own().limit("test") is None


def test_a_test_split_is_taken_as_it_is(own, tmp_path):
    (tmp_path / "own" / "test.jsonl").write_text('{"prompt": "t"}\n')
    assert prompts(own(), "test") == ["t"]
    assert len(prompts(own(), "validation")) == 40


def test_a_test_split_alone_is_halved(own, tmp_path):
    (tmp_path / "own" / "validation.jsonl").rename(tmp_path / "own" / "test.jsonl")
    validation, test = prompts(own(), "validation"), prompts(own(), "test")
    assert sorted(validation + test) == sorted(f"validation {number}" for number in range(40))
    assert 10 < len(test) < 30


def test_halves_follow_the_prompt_alone():
    row = next(row for n in range(99) if is_for_test(row := {"prompt": f"{n}", "completion": "a"}))
    assert is_for_test({"prompt": f" {row['prompt']}\r\n\r\nTL;DR:", "chosen": "b"})
    assert is_for_test({"prompt": [{"role": "user", "content": row["prompt"]}], "completion": "b"})
    assert not is_for_test("invalid_utf8")


def test_a_hub_data_set_is_read_at_its_commit(tmp_path, monkeypatch, settings):
    """openai/summarize_from_feedback: its comparisons, not the other part; test is half of validation."""
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for part, split in (("comparisons", "train"), ("comparisons", "validation"), ("axis", "validation")):
        rows = [
            {
                "info": {"subreddit": "a", "title": part, "post": f"post {number}"},
                "summaries": [{"text": " x"}, {"text": " y"}],
                "choice": number % 2,
            }
            for number in range(20)
        ]
        (tmp_path / part / split).mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / part / split / "0000.parquet")
    name = "openai/summarize_from_feedback"
    data = DataParams(**settings["data"] | {"posts": "own", "comparisons": name})
    source = Source("comparisons", data, {"kind": "hub", "name": name, "commit": "c"})
    options = {"repo_type": "dataset", "revision": "c", "allow_patterns": ["comparisons/*"]}
    assert asked == [(name, options)]
    rows = [row for split in ("train", "validation", "test") for row in source.rows(split)]
    assert len(rows) == 40 and all(row["info"]["title"] == "comparisons" for row in rows)


def test_a_download_that_fails_is_one_line(monkeypatch, settings):
    def download(name, **options):
        raise OSError("cut\nin the middle")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    data = DataParams(**settings["data"] | {"posts": "a/b", "comparisons": "own"})
    with pytest.raises(UserError, match=r"^a/b: cannot be downloaded \(cut\)$"):
        Source("posts", data, {"kind": "hub", "name": "a/b", "commit": "c"})


def test_splits_of_a_hub_data_set_that_cannot_be_told_apart_say_how_to_go_on(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tmp_path))
    (tmp_path / "train.jsonl").touch()
    data = DataParams(**settings["data"] | {"posts": "a/b", "comparisons": "own"})
    line = r"^a/b: no validation split among train.jsonl: .*; download it \(hf download a/b --repo-type dataset "
    with pytest.raises(UserError, match=line):
        Source("posts", data, {"kind": "hub", "name": "a/b", "commit": "c"})


def test_the_embedded_world_makes_what_the_params_say(settings):
    data = DataParams(**settings["data"])
    for what, train in (("posts", 60), ("comparisons", 40)):
        source = Source(what, data, {"kind": "embedded"})
        counts = [len(prompts(source, split)) for split in ("train", "validation", "test")]
        assert counts == [train, 10, 20]


def test_a_note_of_another_source_is_refused(own, settings):
    data = DataParams(**settings["data"])
    with pytest.raises(UserError, match="data.posts: embedded is not the source that was looked at"):
        Source("posts", data, FOLDER)
    data = DataParams(**settings["data"] | {"posts": "own", "comparisons": "own"})
    for note in ({"kind": "embedded"}, FOLDER | {"name": "other"}, {"kind": "hub", "name": "a/b"}):
        with pytest.raises(UserError, match="data.posts: own is not the source that was looked at"):
            Source("posts", data, note)
