import os

import pytest

from minirlhf.runtime import files
from minirlhf.runtime.errors import UserError


def test_json_keeps_key_order_and_text(tmp_path):
    path = tmp_path / "new" / "x.json"
    files.write_json(path, {"b": 1, "a": "né"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "né"\n}\n'
    assert files.read_json(path) == {"b": 1, "a": "né"}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.jsonl"
    files.write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        files.write_jsonl(path, rows())
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"))
    assert files.read_jsonl(path) == [{"a": 1}]
    assert os.listdir(tmp_path) == ["x.jsonl"]


def test_a_hard_link_to_the_old_file_is_not_written_through(tmp_path):
    files.write_json(tmp_path / "x.json", 1)
    os.link(tmp_path / "x.json", tmp_path / "cache")
    files.write_json(tmp_path / "x.json", 2)
    assert files.read_json(tmp_path / "cache") == 1


def test_a_folder_is_swapped_whole_or_left(tmp_path):
    path = tmp_path / "model"
    for number in (1, 2):
        with files.replace_folder(path) as folder:
            (folder / f"{number}.txt").write_text("x")
    with pytest.raises(RuntimeError), files.replace_folder(path) as folder:
        (folder / "3.txt").write_text("x")
        raise RuntimeError("stop")
    assert os.listdir(path) == ["2.txt"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": }\n', "x.jsonl, line 2: not JSON"),
        (b"\n\n[1]\n", "x.jsonl, line 3: expected a JSON object, got list"),
        (b'{"a": "\xff"}\n', "x.jsonl, line 1: not UTF-8 at byte 7"),
        (b"[" * 100_000, "x.jsonl, line 1: not JSON"),
        (b"9" * 5_000, "x.jsonl, line 1: not JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_jsonl(path)


def test_missing_and_unwritable_files_are_named(tmp_path):
    with pytest.raises(UserError, match="none.json: cannot be read: No such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_json(tmp_path / "file" / "x.json", 1)


def test_csv_has_the_keys_of_all_rows_and_numbers_come_back(tmp_path):
    path = tmp_path / "x.csv"
    files.write_csv(path, [{"step": 1, "loss": 0.1}, {"step": 2, "kl": 1e-05, "kind": "a,b"}])
    assert path.read_text() == 'step,loss,kl,kind\n1,0.1,,\n2,,1e-05,"a,b"\n'
    assert files.read_csv(path) == [
        {"step": 1, "loss": 0.1, "kl": None, "kind": None},
        {"step": 2, "loss": None, "kl": 1e-05, "kind": "a,b"},
    ]


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """Or a power cut after the rename leaves a file of the right name and length zero."""
    calls = []
    fsync, rename = os.fsync, os.rename
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell files by their descriptors")
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (calls.append("rename"), rename(*paths)))
    with files.replace_folder(tmp_path / "model") as folder:
        (folder / "part").mkdir()
        for name in ("a", "part/b"):
            (folder / name).write_text(name)
    assert set(calls[:4]) == {str(folder), *(str(folder / name) for name in ("a", "part", "part/b"))}
    assert calls[4:] == ["rename", str(tmp_path)]


def test_what_a_killed_writer_left_is_put_right(tmp_path):
    dead, alive = 99_999_999, os.getppid()
    for pid in (dead, alive, os.getpid()):
        (tmp_path / f".model.{pid}.tmp").mkdir()
        (tmp_path / f".x.json.{pid}.tmp").write_text("{")
    (tmp_path / f".model.{dead}.old").mkdir()
    (tmp_path / f".model.{dead}.old" / "weights").write_text("good")
    (tmp_path / ".model.v2.tmp").write_text("somebody else's")
    files.recover(tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "good"
    files.write_json(tmp_path / "x.json", 1)
    left = {".model.v2.tmp", "model", "x.json", f".model.{alive}.tmp", f".x.json.{alive}.tmp"}
    assert set(os.listdir(tmp_path)) == left
