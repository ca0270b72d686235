"""Each fault of the hub is one clear line, and leaves nothing that is later taken for a whole model."""

import json
from pathlib import Path

import huggingface_hub
import pytest

from minirlhf.data.sources import Source
from minirlhf.hub.fingerprint import fingerprint
from minirlhf.models.loading import load_policy, load_reward_model
from minirlhf.runtime.errors import UserError
from minirlhf.settings.data import DataParams
from tests.hub.conftest import GPT2, REWARD, parquet_splits, tldr
from tests.hub.server import Hub
from tests.hub.test_by_name import run_stages

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRIVATE = "no such folder, and no such model on the hub, or no access to it (private: set HF_TOKEN)"
REFUSED = "[Errno 111] Connection refused"
UNREACHED = f"not downloaded whole, and the hub does not give it now ({REFUSED})"


def refused(function, *arguments) -> str:
    """The line of a UserError, less the name that it begins with."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    name, _, line = str(caught.value).partition(": ")
    assert name == arguments[0] and "\n" not in line
    return line


def blobs(name: str) -> list[Path]:
    return sorted(Path(huggingface_hub.constants.HF_HUB_CACHE).glob(f"models--{name.replace('/', '--')}/blobs/*"))


def test_the_hub_is_down(hub, gpt2_files):
    hub.commit("model", GPT2, gpt2_files)
    hub.stop()
    expected = f"no such folder, and the hub cannot be reached ({REFUSED})"
    assert refused(fingerprint, GPT2, None, "model") == expected
    assert refused(load_policy, GPT2) == expected
    assert refused(load_policy, GPT2, COMMIT) == UNREACHED
    hub.start()
    hub.status = 503
    assert refused(fingerprint, GPT2, None, "model").startswith("no such folder, and the hub cannot be reached (Server")
    hub.status = None
    load_policy(GPT2)


def test_the_hub_is_down_says_a_stage(hub, environment, settings, tmp_path):
    hub.stop()
    settings["data"] |= {"posts": "trl-lib/tldr", "comparisons": "trl-lib/tldr-preference"}
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    result = run_stages(tmp_path, "source")
    line = f"error: trl-lib/tldr: no such folder, and the hub cannot be reached ({REFUSED})\n"
    assert (result.returncode, result.stderr) == (1, line)
    assert not (tmp_path / "data").exists()


def test_there_is_no_such_thing(hub, gpt2_files):
    assert refused(fingerprint, "nobody/nothing", None, "model") == PRIVATE
    assert refused(fingerprint, "nothing", None, "dataset") == PRIVATE.replace("model", "dataset")
    hub.commit("model", GPT2, gpt2_files)
    assert refused(fingerprint, GPT2, "v9", "model") == "no revision v9 on the hub"
    assert refused(load_policy, GPT2, COMMIT) == f"no revision {COMMIT} on the hub"


def test_access(hub, gpt2_files, monkeypatch):
    commit = hub.commit("model", GPT2, gpt2_files)
    repository = hub.repositories["model", GPT2]
    repository.private = True
    assert refused(load_policy, GPT2) == PRIVATE
    assert refused(load_policy, GPT2, commit) == PRIVATE
    repository.private, repository.gated = False, True
    expected = "its terms must be accepted first: do so on its page of the hub, then set HF_TOKEN"
    assert refused(load_policy, GPT2) == expected
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    expected = "the hub gives no access to it: set HF_TOKEN to a token that may read it"
    assert refused(load_policy, GPT2) == expected
    monkeypatch.setenv("HF_TOKEN", Hub.TOKEN)
    load_policy(GPT2)


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_download_that_is_cut(hub, gpt2_files, monkeypatch, sent):
    commit = hub.commit("model", GPT2, gpt2_files)
    hub.cut_after = sent
    assert refused(load_policy, GPT2, commit).startswith("cannot be downloaded (")
    hub.stop()
    assert refused(load_policy, GPT2, commit).endswith(f"({REFUSED})")
    assert refused(load_policy, GPT2).endswith(f"({REFUSED})")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refused(load_policy, GPT2, commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.start()
    hub.cut_after = None
    load_policy(GPT2, commit)
    assert not [blob for blob in blobs(GPT2) if blob.suffix == ".incomplete"]


@pytest.mark.parametrize(("file", "hashed"), [("model.safetensors", "sha256"), ("tokenizer.json", "sha1")])
def test_a_file_that_is_not_what_the_hub_says(hub, gpt2_files, file, hashed):
    """Its size is right, so huggingface_hub takes it."""
    commit = hub.commit("model", GPT2, gpt2_files)
    hub.damaged = {gpt2_files[file]}
    line = f"{file} has not the content that the hub gives ({hashed} differs); it was removed: run again"
    assert refused(load_policy, GPT2, commit) == line
    hub.stop()
    assert refused(load_policy, GPT2, commit).endswith(f"({REFUSED})")
    hub.start()
    hub.damaged = set()
    load_policy(GPT2, commit)


def test_a_file_damaged_in_the_cache(hub, gpt2_files):
    commit = hub.commit("model", GPT2, gpt2_files)
    load_policy(GPT2, commit)
    weights = max(blobs(GPT2), key=lambda blob: len(blob.name))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert "model.safetensors has not the content" in refused(load_policy, GPT2, commit)
    load_policy(GPT2, commit)


def test_a_damaged_data_set(hub, settings):
    files = parquet_splits(tldr)
    hub.commit("dataset", "trl-lib/tldr", files)
    hub.damaged = {files["data/train-00000-of-00001.parquet"]}
    data = DataParams(**settings["data"] | {"posts": "trl-lib/tldr", "comparisons": "a/b"})
    note = fingerprint("trl-lib/tldr", None, "dataset")
    with pytest.raises(UserError, match="^trl-lib/tldr: data/train-00000-of-00001.parquet has not the content"):
        Source("posts", data, note)
    hub.damaged = set()
    assert len(list(Source("posts", data, note).rows("train"))) == 12


def test_weights_in_no_safe_format(hub, reward_files):
    hub.commit("model", REWARD, {name: file for name, file in reward_files.items() if name != "model.safetensors"})
    hub.commit("model", REWARD, reward_files, "refs/pr/1")
    line = "no weights in safetensors format there (*.safetensors), and no other is read; "
    line += "a conversion may wait as a pull request: try revision refs/pr/1"
    assert refused(load_reward_model, REWARD) == line
    load_reward_model(REWARD, "refs/pr/1")
