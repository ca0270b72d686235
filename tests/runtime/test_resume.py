import os
import subprocess
import sys

import pytest

from minirlhf.runtime import resume
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.resume import fingerprint, resume_folder


def test_a_fingerprint_depends_on_settings_and_on_the_content_of_inputs(tmp_path):
    folder = tmp_path / "posts"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}\n")
    first = fingerprint({"a": 1, "b": 2}, [folder])
    assert fingerprint({"b": 2, "a": 1}, [folder]) == first
    assert fingerprint({"a": 1, "b": 3}, [folder]) != first
    (folder / "train.jsonl").write_text("[]\n")
    assert fingerprint({"a": 1, "b": 2}, [folder]) != first


def test_the_folder_stays_after_a_failure_only(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(KeyError), resume_folder("ppo", {}, []) as folder:
        (folder / "state").write_text("half")
        raise KeyError
    with resume_folder("ppo", {}, []) as again:
        assert again == folder and (again / "state").read_text() == "half"
    assert not folder.exists()


def test_states_that_another_process_deletes_meanwhile_are_passed_over(tmp_path, monkeypatch):
    """Those of other settings, whose runs stand beside this one and end when they end."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    iterdir = resume.Path.iterdir
    monkeypatch.setattr(resume.Path, "is_dir", lambda path: True)
    monkeypatch.setattr(resume.Path, "iterdir", lambda path: [*iterdir(path), path / "gone"])
    with resume_folder("ppo", {}, []) as folder:
        assert folder.exists()


HOLD = """
import sys
from minirlhf.runtime.resume import resume_folder
with resume_folder("ppo", {}, []):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_one_process_a_state(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(UserError, match="another process is at the same work"), resume_folder("ppo", {}, []):
            pass
        with resume_folder("ppo", {"seed": 2}, []), resume_folder("sft", {}, []):
            pass
        other.kill()
    with resume_folder("ppo", {}, []):
        pass
    assert os.listdir(tmp_path / ".resume" / "ppo") == []


def fail(*settings):
    for each in settings:
        with pytest.raises(KeyError), resume_folder("ppo", each, []) as folder:
            (folder / "state").write_text(str(each))
            raise KeyError


def test_old_states_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    fail(*range(9))
    assert len(list(tmp_path.glob(".resume/ppo/*/state"))) == resume.KEPT
    assert len(list(tmp_path.glob(".resume/ppo/*.lock"))) == resume.KEPT
    with resume_folder("ppo", 7, []) as folder:  # back to a setting of before
        assert (folder / "state").read_text() == "7"


def test_a_state_at_work_is_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with resume_folder("ppo", {}, []) as folder:
        os.utime(folder, (0, 0))
        fail(*range(5))
        assert folder.exists()


def test_a_deletion_cut_short_leaves_nothing_to_go_on_from(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    fail(1)
    with monkeypatch.context() as patch, resume_folder("ppo", 1, []) as folder:
        patch.setattr(resume.shutil, "rmtree", lambda *args, **kwargs: None)
    assert list(folder.parent.iterdir()) == [folder.with_suffix(".deleted")]
    with resume_folder("ppo", 1, []) as again:
        assert os.listdir(again) == []
    assert list(folder.parent.iterdir()) == []


def test_of_several_processes_the_first_one_locks_and_deletes(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with resume_folder("ppo", {}, []) as first:
        monkeypatch.setenv("RANK", "1")
        with resume_folder("ppo", {}, []) as second:
            assert second == first
        assert first.exists()
