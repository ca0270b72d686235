import pytest

from minirlhf.data.files import find_split_files
from minirlhf.runtime.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    parts = find_split_files(folder, "mine").parts
    return {split: [part.path.relative_to(folder).as_posix() for part in of] for split, of in parts.items()}


def test_split_files_of_the_usual_layouts(tmp_path):
    names = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/validation.jsonl"]
    touch(tmp_path, *names, "README.md", "data/training.jsonl", "data/extra.jsonl", ".ipynb_checkpoints/train.jsonl")
    assert found(tmp_path) == {"train": names[:2], "validation": names[2:]}
    unread = [path.name for path in find_split_files(tmp_path, "mine").unread]
    assert unread == ["extra.jsonl", "training.jsonl"]


def test_split_files_of_the_hubs_parquet_copies(tmp_path):
    names = ["train/0000.parquet", "train/0001.parquet", "validation/0000.parquet", "test/0000.parquet"]
    touch(tmp_path, *names)
    assert found(tmp_path) == {"train": names[:2], "validation": names[2:3], "test": names[3:]}


def test_folders_without_the_splits_are_named(tmp_path):
    with pytest.raises(UserError, match="mine: no train split among no files: expected train with .jsonl, .ndjson, "):
        found(tmp_path)
    touch(tmp_path, "train.jsonl")
    with pytest.raises(UserError, match="mine: no validation split among train.jsonl: "):
        found(tmp_path)
    touch(tmp_path, "old/train.jsonl", "validation.jsonl")
    with pytest.raises(UserError, match=r"mine: several data sets in one folder \(\., old\)"):
        found(tmp_path)


@pytest.mark.parametrize(
    "name", ["validation", "valid", "val", "dev", "Valid", "valid1", "valid-00000-of-00001-b42a775f407cee45"]
)
def test_other_names_of_the_validation_split(tmp_path, name):
    touch(tmp_path, "train.jsonl", f"{name}.parquet")
    assert found(tmp_path) == {"train": ["train.jsonl"], "validation": [f"{name}.parquet"]}


def test_one_held_out_split_is_enough(tmp_path):
    touch(tmp_path, "training.csv.gz", "eval.tsv")
    assert found(tmp_path) == {"train": ["training.csv.gz"], "test": ["eval.tsv"]}


def test_the_plainest_name_is_taken_and_the_others_are_named(tmp_path):
    touch(tmp_path, "train.json", "train_prefs.json", "valid1.json", "valid2.json", "val_sft.json", "test_sft.json")
    assert found(tmp_path) == {"train": ["train.json"], "validation": ["valid1.json"], "test": ["test_sft.json"]}
    unread = [path.name for path in find_split_files(tmp_path, "mine").unread]
    assert unread == ["train_prefs.json", "val_sft.json", "valid2.json"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["train_prefs.jsonl", "train_gen.jsonl"], r"for train \(train_gen.jsonl, train_prefs.jsonl\)"),
        (["train1.jsonl", "train2.jsonl"], r"for train \(train1.jsonl, train2.jsonl\): leave the one"),
        (["train.jsonl", "train.csv"], r"for train \(train.csv, train.jsonl\): leave the one that is meant"),
        (["train_sft/0.jsonl", "train_gen/0.jsonl"], "several files for train"),
        (["train-00000-of-00002.parquet"], "train: only 1 of 2 files, of which train-00000-of-00002.parquet is one"),
    ],
)
def test_what_might_be_either_is_asked_for(tmp_path, names, line):
    touch(tmp_path, *names, "validation.jsonl")
    with pytest.raises(UserError, match=line):
        found(tmp_path)


@pytest.mark.parametrize(("what", "use"), [("posts", "sft"), ("comparisons", "prefs")])
def test_of_splits_that_are_named_for_a_use_that_one_is_taken(tmp_path, what, use):
    """As the hub has HuggingFaceH4/ultrafeedback_binarized."""
    splits = [f"{split}_{each}" for split in ("train", "test") for each in ("gen", "prefs", "sft")]
    touch(tmp_path, *(f"data/{split}-00000-of-00001.parquet" for split in splits))
    files = find_split_files(tmp_path, "mine", what)
    taken = {split: [part.path.name for part in of] for split, of in files.parts.items()}
    assert taken == {split: [f"{split}_{use}-00000-of-00001.parquet"] for split in ("train", "test")}
    assert len(files.unread) == 4
    (tmp_path / "data" / f"train_{use}.jsonl").touch()
    with pytest.raises(UserError, match=r"several files for train \(train_gen-.*: leave the one that is meant"):
        find_split_files(tmp_path, "mine", what)


def test_links_that_lead_to_no_file_are_named(tmp_path):
    touch(tmp_path, "far/0.jsonl", "own/validation.jsonl")
    (tmp_path / "own/train").symlink_to(tmp_path / "far")
    with pytest.raises(
        UserError, match="own/train: a link to a folder, which is not followed: put the files themselves"
    ):
        found(tmp_path / "own")
    (tmp_path / "own/train").unlink()
    (tmp_path / "own/train.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match="own/train.jsonl: a link to nothing: put the files themselves there"):
        found(tmp_path / "own")
    (tmp_path / "own/train.jsonl").unlink()
    (tmp_path / "own/train.jsonl").symlink_to(tmp_path / "far/0.jsonl")
    assert found(tmp_path / "own")["train"] == ["train.jsonl"]


def test_splits_in_one_file(tmp_path):
    (tmp_path / "posts.json").write_text('{"train": [{"a": 1}], "Valid": [{"a": 2}]}')
    parts = find_split_files(tmp_path, "mine").parts
    assert {split: [part.key for part in of] for split, of in parts.items()} == {
        "train": ["train"],
        "validation": ["Valid"],
    }
    (tmp_path / "posts.json").write_text("[1]")
    with pytest.raises(UserError, match="mine: no train split among posts.json: "):
        found(tmp_path)
