"""`minirlhf push`: a model goes to the hub as one commit, private, and comes back the same."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from minirlhf.commands.cli import command
from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from tests.hub.server import Hub

NAME = "me/summarizer"
CARD = '---\nlicense: "mit"\n---\n\n    AutoTokenizer.from_pretrained("models/ppo")\n'


@pytest.fixture
def project(hub, tmp_path, tiny_models, monkeypatch):
    """A folder with models and a card, and the token of one who may write."""
    for name in ("ppo", "reward"):
        shutil.copytree(tiny_models / name, tmp_path / "models" / name)
    (tmp_path / "models/ppo/training_args.bin").write_bytes(b"pickle")
    (tmp_path / "models/ppo.md").write_text(CARD)
    reward = {"format": "concat", "mean": 0.25, "scale": 2.0}
    (tmp_path / "models/reward/reward.json").write_text(json.dumps(reward))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", Hub.TOKEN)
    return tmp_path


def refused(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        command(["push", *arguments])
    assert "\n" not in str(caught.value) and Hub.READER not in str(caught.value)
    return str(caught.value)


def test_a_policy_is_sent_private_with_its_card_and_comes_back(project, hub, capsys):
    command(["push", "models/ppo", NAME])
    shown = f"models/ppo is at {hub.url}/{NAME} (private), with its card models/ppo.md\n"
    assert capsys.readouterr().out == shown
    repository = hub.repositories["model", NAME]
    assert repository.private and len(repository.commits) == 2
    files = repository.commits[repository.refs["main"]]
    sent = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert set(files) == {".gitattributes", *sent, "tokenizer.json", "tokenizer_config.json"}
    assert files["README.md"].decode() == CARD.replace("models/ppo", NAME)
    assert not any(Hub.TOKEN.encode() in content for content in files.values())
    own, back = load_policy(Path("models/ppo")), load_policy(NAME)
    assert all(torch.equal(weights, back.state_dict()[name]) for name, weights in own.state_dict().items())
    assert load_tokenizer(NAME).get_vocab() == load_tokenizer("models/ppo").get_vocab()


def test_a_repository_that_is_there_gets_another_commit(project, hub, capsys):
    hub.commit("model", NAME, {"notes.txt": b"mine"})
    assert refused("models/ppo", NAME) == f"{NAME}: a public repository: add --public to send it there"
    assert len(hub.repositories["model", NAME].commits) == 1
    command(["push", "models/ppo", NAME, "--public"])
    assert "(public)" in capsys.readouterr().out
    repository = hub.repositories["model", NAME]
    files = repository.commits[repository.refs["main"]]
    assert not repository.private and len(repository.commits) == 2
    assert files["notes.txt"] == b"mine" and files["model.safetensors"]


def test_a_reward_model_keeps_its_scale(project, hub, capsys):
    command(["push", "models/reward", "me/judge"])
    assert capsys.readouterr().out.endswith("without a card: there is no models/reward.md\n")
    prompts, summaries = ["my cat left. TL;DR:"], [" cat left"]
    here, there = (RewardModel.load(name) for name in ("models/reward", "me/judge"))
    assert (there.mean, there.scale, there.format) == (0.25, 2.0, "concat")
    assert here(prompts, summaries, [True]) == there(prompts, summaries, [True])


def test_a_reward_model_takes_the_language_model_along_that_it_weighs(project, hub, tiny_models):
    shutil.copytree(tiny_models / "sft", project / "models/reward/likelihood")
    file = project / "models/reward/reward.json"
    file.write_text(json.dumps({"format": "concat", "mean": 0.25, "scale": 2.0, "likelihood": {"total": 0.5}}))
    command(["push", "models/reward", "me/judge"])
    repository = hub.repositories["model", "me/judge"]
    sent = set(repository.commits[repository.refs["main"]])
    assert {"model.safetensors", "reward.json", "likelihood/model.safetensors", "likelihood/tokenizer.json"} <= sent
    prompts, summaries = ["my cat left. TL;DR:"], [" cat left"]
    here = RewardModel.load("models/reward")(prompts, summaries, [True])
    assert RewardModel.load("me/judge")(prompts, summaries, [True]) == here
    hub.stop()
    assert RewardModel.load("me/judge")(prompts, summaries, [True]) == here  # from the cache
    shutil.rmtree(project / "models/reward/likelihood")
    line = (
        "models/reward/likelihood: no weights in safetensors format there (*.safetensors), so there is nothing to send"
    )
    assert refused("models/reward", "me/other") == line


def test_a_likelihood_that_a_repository_lacks_is_said(project, hub, tiny_models):
    files = {path.name: path.read_bytes() for path in Path("models/reward").iterdir() if path.is_file()}
    hub.commit("model", "me/half", files | {"reward.json": json.dumps({"likelihood": {"total": 0.5}}).encode()})
    with pytest.raises(UserError, match="^me/half: no folder likelihood in it, which its reward.json weighs$"):
        RewardModel.load("me/half")


@pytest.mark.parametrize("token", [None, Hub.READER])
@pytest.mark.parametrize("exists", [False, True])
def test_no_right_to_write(project, hub, monkeypatch, token, exists):
    if exists:
        hub.commit("model", NAME, {"notes.txt": b"theirs"})
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    line = f"{NAME}: the hub takes nothing there from you: set HF_TOKEN to a token that may write to it"
    assert refused("models/ppo", NAME, "--public") == line
    assert len(hub.repositories) == exists


def test_an_upload_that_is_cut_leaves_nothing_and_goes_on(project, hub):
    hub.cut_upload = True
    line = f"{NAME}: not sent, and nothing of it is there: run the same command again ("
    assert refused("models/ppo", NAME).startswith(line)
    assert len(hub.repositories["model", NAME].commits) == 1
    hub.cut_upload = False
    command(["push", "models/ppo", NAME])
    assert len(hub.repositories["model", NAME].commits) == 2


def test_the_hub_is_down(project, hub):
    hub.stop()
    assert refused("models/ppo", NAME).startswith(f"{NAME}: not sent, and nothing of it is there")


def test_what_is_no_model_is_not_sent(project, hub):
    assert refused("models/none", NAME) == "models/none: no such folder"
    assert refused("models/ppo", "a name") == "a name: expected the name of a repository, as user/ppo"
    Path("models/reward/model.safetensors").unlink()  # as of a pretrained one, of which the stage keeps the name
    line = "models/reward: no weights in safetensors format there (*.safetensors), so there is nothing to send"
    assert refused("models/reward", NAME) == line
    assert hub.requests == []
