import pytest

from minirlhf.resume import fingerprint, resume_folder


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
