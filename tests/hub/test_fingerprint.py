import subprocess
import sys

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RevisionResolutionError

from minirlhf.hub.fingerprint import fingerprint, hash_folder
from minirlhf.hub.locate import hub_dataset, locate, model_place
from minirlhf.runtime.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "train.jsonl").write_text("{}")
    return tmp_path / "own"


def test_a_folder_is_its_names_and_contents(own):
    first = hash_folder(own)
    (own / ".cache").write_text("hidden")
    (own / "data" / "train.jsonl").touch()
    assert hash_folder(own) == first
    assert fingerprint("own", None, "dataset") == {"kind": "folder", "name": "own", "sha256": first}
    (own / "data" / "train.jsonl").rename(own / "data" / "test.jsonl")
    second = hash_folder(own)
    (own / "data" / "test.jsonl").write_text("{ }")
    assert len({first, second, hash_folder(own)}) == 3


def test_a_relative_folder_may_be_in_the_repository_that_dvc_started_in(own, tmp_path, monkeypatch):
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    assert locate("own/data") is None  # so it would be a hub name
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert locate("own/data") == tmp_path / "own" / "data"
    assert model_place("own") == str(tmp_path / "own")
    (tmp_path / "copy" / "own").mkdir()  # what the copy has goes first
    assert locate("own").resolve() == tmp_path / "copy" / "own"


@pytest.mark.parametrize("name", ["/none/such", "./none", "a/b/c", "~nobody/x", "what?", ""])
def test_what_is_neither_folder_nor_hub_name(own, name, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    if name == "":
        assert locate(name).resolve() == own.parent  # params refuse the empty name
        return
    with pytest.raises(UserError, match="no such folder"):
        locate(name)


def test_a_file_is_no_folder(own):
    with pytest.raises(UserError, match="expected a folder, got a file"):
        locate("own/data/train.jsonl")


def test_hub_names_are_their_commit(monkeypatch):
    asked = []

    def resolve(self, name, revision, repo_type):
        asked.append((name, revision, repo_type))
        return type("Resolved", (), {"resolved": COMMIT})

    monkeypatch.setattr(HfApi, "resolve_revision", resolve)
    note = {"kind": "hub", "name": "trl-lib/tldr", "commit": COMMIT}
    assert fingerprint("OpenAI/summarize_tldr", None, "dataset") == note
    fingerprint("openai/summarize_from_feedback", None, "dataset")
    fingerprint("gpt2", "v1", "model")
    assert asked == [
        ("trl-lib/tldr", None, "dataset"),
        ("openai/summarize_from_feedback", "refs/convert/parquet", "dataset"),
        ("gpt2", "v1", "model"),
    ]
    assert hub_dataset("trl-lib/tldr") == "trl-lib/tldr"


def test_a_pinned_commit_needs_no_network(monkeypatch):
    monkeypatch.setattr(HfApi, "repo_info", None)
    assert fingerprint("gpt2", COMMIT, "model")["commit"] == COMMIT


def test_an_unreachable_hub_is_said(monkeypatch):
    def resolve(self, name, **options):
        raise RevisionResolutionError("long") from OSError("refused")

    monkeypatch.setattr(HfApi, "resolve_revision", resolve)
    with pytest.raises(UserError, match=r"^a/b: no such folder, and the hub cannot be reached \(refused\)$"):
        fingerprint("a/b", None, "dataset")


def test_offline_the_commit_resolved_last_is_used(tmp_path):
    """In a process of its own, since huggingface_hub reads its settings at import."""
    (tmp_path / "datasets--a--b" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "refs" / "main").write_text(COMMIT)
    code = "from minirlhf.hub.fingerprint import fingerprint; print(fingerprint('a/b', None, 'dataset')['commit'])"
    environment = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == COMMIT
    assert "cached commit" in result.stderr
