import json

import pytest

from minirlhf.data.sources import Source, is_for_test
from minirlhf.errors import UserError
from minirlhf.params import DataParams

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


def test_halves_follow_the_prompt_alone():
    row = next(row for n in range(99) if is_for_test(row := {"prompt": f"{n}", "completion": "a"}))
    assert is_for_test({"prompt": row["prompt"] + "\n", "chosen": "b"})
    assert not is_for_test("invalid_utf8") and not is_for_test({"prompt": 3}) and not is_for_test({})


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
