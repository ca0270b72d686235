import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from minirlhf.ppo import LoRAConfig, PPOConfig, PPOTrainer
from minirlhf.runtime.errors import UserError
from tests.ppo.conftest import count_w7, make_policy

SETTINGS = dict(
    episodes=48,
    batch_size=8,
    ppo_epochs=2,
    minibatches=2,
    micro_batch_size=3,
    max_new_tokens=6,
    learning_rate=1e-3,
    adaptive_kl_target=1.0,
    adaptive_kl_horizon=100,
    eval_every=2,
)


def noisy_reward(prompts, responses):
    """Draws from every global random state: they must be where they were."""
    noise = random.random() + np.random.random() + torch.rand(()).item()
    return [score + noise for score in count_w7(prompts, responses)]


def make_trainer(folder, tokenizer, prompts, callbacks=(), **changes):
    config = PPOConfig(**{**SETTINGS, **changes})
    return PPOTrainer(
        config,
        make_policy(),
        tokenizer,
        noisy_reward,
        prompts,
        prompts[:3],
        folder=folder,
        resume_minutes=0,
        device="cpu",
        callbacks=callbacks,
    )


class Killed(Exception):
    pass


def kill_after(update):
    def callback(row):
        if row["update"] == update:
            raise Killed

    return callback


@pytest.mark.parametrize(
    "changes",
    [{}, {"critic": "separate"}, {"lora": LoRAConfig(rank=2)}, {"critic": "separate", "lora": LoRAConfig(rank=2)}],
)
def test_resuming_gives_the_same_bytes(tmp_path, tokenizer, prompts, changes):
    def seed_everything():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)

    whole = make_trainer(tmp_path / "whole", tokenizer, prompts, **changes)
    seed_everything()
    whole.train()
    whole.save(tmp_path / "whole-policy")

    killed = make_trainer(tmp_path / "parts", tokenizer, prompts, [kill_after(5)], **changes)
    seed_everything()
    with pytest.raises(Killed):
        killed.train()
    resumed = make_trainer(tmp_path / "parts", tokenizer, prompts, **changes)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    resumed.train()
    resumed.save(tmp_path / "parts-policy")

    assert resumed.history == whole.history
    for name in (
        "whole/history.csv",
        "whole/samples.jsonl",
        "whole/resume/weights.safetensors",
        "whole/resume/state.json",
        "whole-policy/model.safetensors",
    ):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("whole", "parts")).read_bytes(), name


def test_a_finished_run_does_not_train_again(tmp_path, tokenizer, prompts):
    make_trainer(tmp_path, tokenizer, prompts).train()
    again = make_trainer(tmp_path, tokenizer, prompts, [kill_after(1), kill_after(2)])
    assert len(again.train()) == 7  # six updates and the evaluation before the first


def test_saved_policy_loads_and_is_the_trained_one(tmp_path, tokenizer, prompts):
    trainer = make_trainer(tmp_path / "run", tokenizer, prompts)
    trainer.train()
    trainer.save(tmp_path / "policy")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(ids).logits, loaded(ids).logits)
    torch.testing.assert_close(loaded(ids).logits, trainer.models.policy.model(ids).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(loaded(ids).logits, make_policy()(ids).logits, atol=1e-3)
    assert loaded.config.activation_function == "gelu_new"
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").get_vocab() == tokenizer.get_vocab()
    assert {path.suffix for path in (tmp_path / "policy").rglob("*") if path.is_file()} <= {".json", ".safetensors"}


def test_other_settings_are_refused(tmp_path, tokenizer, prompts):
    make_trainer(tmp_path, tokenizer, prompts).train()
    with pytest.raises(UserError, match="another kl_coef"):
        make_trainer(tmp_path, tokenizer, prompts, kl_coef=0.2).train()


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_resume_point_is_refused(tmp_path, tokenizer, prompts, name):
    make_trainer(tmp_path, tokenizer, prompts).train()
    file = tmp_path / "resume" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=name if name == "state.json" else "cannot be read"):
        make_trainer(tmp_path, tokenizer, prompts).train()


def spoil_weights(edit):
    def spoil(folder):
        weights = load_file(folder / "weights.safetensors")
        edit(weights)
        save_file(weights, folder / "weights.safetensors")

    return spoil


def spoil_state(edit):
    def spoil(folder):
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(edit(state)))

    return spoil


HEAD = "critic.head.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights(lambda all: all[HEAD].fill_(torch.nan)), f"the weights {HEAD} are not finite"),
        (spoil_weights(lambda all: all.update({HEAD: torch.zeros(1, 1)})), "the weights of another model"),
        (spoil_weights(lambda all: all.pop(HEAD)), "the weights of another model"),
        (lambda folder: torch.save({"state": {}}, folder / "optimizer.pt"), "cannot be read"),
        (lambda folder: torch.save([1], folder / "optimizer.pt"), "cannot be read"),
        (spoil_state(lambda state: []), "state.json: expected a JSON object, got list"),
        (spoil_state(lambda state: {"settings": state["settings"]}), "state.json: no 'random' in it"),
        (spoil_state(lambda state: state | {"random": {}}), "cannot be read"),
        (spoil_state(lambda state: state | {"settings": 1}), "another seed"),
    ],
)
def test_a_resume_point_of_wrong_content_is_refused(tmp_path, tokenizer, prompts, spoil, message):
    make_trainer(tmp_path, tokenizer, prompts, episodes=8).train()
    spoil(tmp_path / "resume")
    with pytest.raises(UserError, match=message) as caught:
        make_trainer(tmp_path, tokenizer, prompts, episodes=8).train()
    assert "\n" not in str(caught.value)


def test_a_pickle_in_the_optimizer_state_does_not_run(tmp_path, tokenizer, prompts):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    make_trainer(tmp_path, tokenizer, prompts).train()
    torch.save({"state": Attack()}, tmp_path / "resume" / "optimizer.pt")
    with pytest.raises(UserError, match="cannot be read"):
        make_trainer(tmp_path, tokenizer, prompts).train()
    assert not (tmp_path / "hacked").exists()


def test_state_is_plain_json(tmp_path, tokenizer, prompts):
    make_trainer(tmp_path, tokenizer, prompts).train()
    state = json.loads((tmp_path / "resume" / "state.json").read_text())
    assert state["updates_done"] == 6 and state["optimizer_steps"] == 24
    assert len(state["history"]) == 7
