import io
import json

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from minirlhf.data.rows import find_split_files, read_rows, to_trl_columns
from minirlhf.runtime.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    files = find_split_files(folder, "mine")
    return {split: [path.relative_to(folder).as_posix() for path in paths] for split, paths in files.items()}


def test_split_files_of_the_usual_layouts(tmp_path):
    names = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/validation.jsonl"]
    touch(tmp_path, *names, "README.md", "data/training.jsonl", "data/extra.jsonl")
    assert found(tmp_path) == {"train": names[:2], "validation": names[2:]}


def test_split_files_of_the_hubs_parquet_copies(tmp_path):
    names = ["train/0000.parquet", "train/0001.parquet", "validation/0000.parquet", "test/0000.parquet"]
    touch(tmp_path, *names)
    assert found(tmp_path) == {"train": names[:2], "validation": names[2:3], "test": names[3:]}


def test_folders_without_the_splits_are_named(tmp_path):
    with pytest.raises(UserError, match=r"mine: no train split: expected train.jsonl or train\*.parquet"):
        found(tmp_path)
    touch(tmp_path, "train.jsonl")
    with pytest.raises(UserError, match="mine: no validation split"):
        found(tmp_path)
    touch(tmp_path, "old/train.jsonl", "validation.jsonl")
    with pytest.raises(UserError, match=r"mine: several data sets in one folder \(\., old\)"):
        found(tmp_path)


def test_rows_of_json_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[2]\n{"a": "\xff"}\n{"a": "\xe2\x80\xa8"}\n')
    assert list(read_rows(path)) == [{"a": 1}, "not_an_object", "invalid_utf8", {"a": "\u2028"}]


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"a": 1}\n{"a": 2\n')
    with pytest.raises(UserError, match="train.jsonl, line 2: not JSON"):
        list(read_rows(path))


def test_rows_of_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    bad = pyarrow.array([b"x", b"\xff", None], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"a": bad}), path)
    assert list(read_rows(path)) == [{"a": "x"}, "invalid_utf8", {"a": None}]


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.table({"a": [str(i) for i in range(1000)]}), path)
    content = path.read_bytes()
    for damaged in (b"PAR1", content[: len(content) // 2], content[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="train.parquet: not a parquet file that can be read"):
            list(read_rows(path))


INFO = {"subreddit": "a", "title": "b", "post": "c"}
SUMMARIES = [{"text": " x"}, {"text": " y"}]


def test_openai_comparisons_become_trl_columns():
    prompt = "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c\n\nTL;DR:"
    row = to_trl_columns({"info": INFO, "summaries": SUMMARIES, "choice": 0, "worker": "w"})
    assert row == {"prompt": prompt, "chosen": " x", "rejected": " y"}
    row = {"prompt": "p", "completion": "c"}
    assert to_trl_columns(row) is row


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choice": 2}, "mistyped_field"),
        ({"choice": "0"}, "mistyped_field"),
        ({"choice": 1.0}, "mistyped_field"),
        ({"summaries": SUMMARIES[:1]}, "mistyped_field"),
        ({"summaries": None}, "missing_field"),
        ({"info": {"article": "news"}}, "missing_field"),
        ({"info": INFO | {"post": None}}, "not_a_post"),
    ],
)
def test_openai_rows_that_are_refused(change, reason):
    assert to_trl_columns({"info": INFO, "summaries": SUMMARIES, "choice": 0} | change) == reason


@given(
    st.lists(st.binary() | st.dictionaries(st.text(), st.integers() | st.text()).map(lambda d: json.dumps(d).encode()))
)
def test_any_bytes_are_rows_or_a_user_error(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        assert all(isinstance(row, dict | str) for row in read_rows(path))
    except UserError as error:
        assert "line " in str(error)


def parquet_file(**options):
    out = io.BytesIO()
    columns = {"prompt": [f"post {n}" for n in range(200)], "completion": ["b", None] * 100, "choice": [0.0] * 200}
    parquet.write_table(pyarrow.table(columns), out, **options)
    return out.getvalue()


PARQUET = [parquet_file(compression="none"), parquet_file(write_page_checksum=True, compression="snappy")]


@given(st.sampled_from(PARQUET), st.data())
def test_any_damage_to_parquet_is_rows_or_a_user_error(tmp_path_factory, content, data):
    content = bytearray(content)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[at] = byte
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        assert all(isinstance(row, dict | str) for row in read_rows(path))
    except UserError as error:
        assert "train.parquet: not a parquet file that can be read: " in str(error) and "\n" not in str(error)


ODD = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)
PARTS = ODD | st.dictionaries(st.sampled_from(["subreddit", "title", "post", "text"]), ODD)


@given(st.dictionaries(st.sampled_from(["info", "summaries", "choice", "prompt"]), PARTS | st.lists(PARTS, max_size=2)))
def test_any_row_becomes_a_row_or_a_reason(row):
    assert isinstance(to_trl_columns(row), dict | str)
