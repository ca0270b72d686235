import io
import json

import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from minirlhf.data.rows import read_rows
from minirlhf.runtime.errors import UserError


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


@example([b"[\x80"])
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
