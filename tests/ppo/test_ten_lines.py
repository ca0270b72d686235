"""The ten lines of docs/from_trl.md, for a function, an encoder with its own tokenizer, and chats."""

import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from minirlhf.models import load_tokenizer
from minirlhf.ppo import PPOConfig
from minirlhf.rewards.model import RewardModel
from tests.conftest import make_chatml
from tests.pipelines import ROOT

PAGE = (ROOT / "docs" / "from_trl.md").read_text()
CONFIG = PPOConfig(episodes=8, batch_size=8, max_new_tokens=4, learning_rate=1e-3)


def code(beginning: str) -> str:
    """The block of the page that begins so."""
    [found] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if block.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def encoder(tiny_encoders, tmp_path_factory):
    """A folder of an encoder with a head of one label and a tokenizer that is not the policy's."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny_encoders / "deberta", num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoders / "deberta").save_pretrained(folder)
    return folder


def run_page(tiny_models, monkeypatch, tmp_path, reward, prompts=("my cat left. TL;DR:",) * 8, tokenizer=None):
    """Run the page's first lines with these; returns what their reward was called with."""
    seen = []

    def watched(prompts, responses, ended):
        seen.extend(prompts)
        return reward(prompts, responses, ended) if isinstance(reward, RewardModel) else reward(prompts, responses)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RewardModel, "load", lambda folder: watched)
    names = {"policy": str(tiny_models / "sft"), "prompts": list(prompts)}
    names["tokenizer"] = tokenizer or load_tokenizer(tiny_models / "sft")
    exec(code("from minirlhf.ppo import").replace("PPOConfig(episodes=2048)", "CONFIG"), {**names, "CONFIG": CONFIG})
    assert (tmp_path / "aligned" / "model.safetensors").exists() and len(seen) == 8
    return seen


def test_a_function(tiny_models, monkeypatch, tmp_path):
    names = {}
    exec(code("def reward"), names)
    run_page(tiny_models, monkeypatch, tmp_path, names["reward"])


def test_an_encoder(tiny_models, encoder, monkeypatch, tmp_path):
    line = code("reward = RewardModel").replace("OpenAssistant/reward-model-deberta-v3-large-v2", str(encoder))
    names = {"RewardModel": RewardModel}
    exec(line, names)
    run_page(tiny_models, monkeypatch, tmp_path, names["reward"])


def test_chats(tiny_models, small_bpe, monkeypatch, tmp_path):
    names = {}
    exec(code("prompts = [[").replace("* 64", "* 8"), names)
    from transformers import AutoModelForCausalLM

    tokenizer = make_chatml(small_bpe)
    policy = AutoModelForCausalLM.from_pretrained(tiny_models / "sft")
    policy.resize_token_embeddings(len(tokenizer))
    policy.save_pretrained(tmp_path / "chat")
    models = tmp_path / "models"
    models.mkdir()
    (tmp_path / "chat").rename(models / "sft")
    seen = run_page(
        models, monkeypatch, tmp_path, lambda _, responses: [0.0] * len(responses), names["prompts"], tokenizer
    )
    assert names["prompts"][0][-1]["content"] in seen[0]  # as its template writes it


def test_every_setting_of_ours_and_of_trls_is_on_the_page():
    missing = [name for name in PPOConfig.model_fields if f"`{name}`" not in PAGE]
    unlike = {
        "rollout_batch_size",
        "target_kl",
        "adaptive_kl_horizon",
        "snapshot_every",
        "deliver",
        "kl_ceiling",
        "entropy_floor",
        "identical_patience",
        "stop_on_alarm",
        "critic",
        "lora",
    }  # fmt: skip; TRL has nothing like them
    assert set(missing) <= unlike
