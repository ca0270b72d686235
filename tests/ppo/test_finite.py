"""PPO that really goes wrong: broken weights, absurd rates, overflowing rewards, collapse."""

import re

import pytest
import torch
from safetensors.torch import load_file

from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.rewards.text import RewardError
from minirlhf.runtime.errors import TrainingError
from tests.ppo.conftest import EOS, count_w7, make_policy

SETTINGS = dict(episodes=64, batch_size=16, ppo_epochs=1, max_new_tokens=8, temperature=1.0, lr_schedule="constant")


def make_trainer(
    tokenizer, prompts, reward=count_w7, policy=None, folder=None, reference=None, resume_minutes=5.0, **changes
):
    options = {"reference": reference, "folder": folder, "resume_minutes": resume_minutes, "device": "cpu"}
    config = PPOConfig(**{**SETTINGS, "learning_rate": 1e-3, **changes})
    policy = policy or make_policy()
    return PPOTrainer(config, policy, tokenizer, reward, prompts, **options)


def is_finite(file):
    return all(bool(torch.isfinite(weight).all()) for weight in load_file(file).values())


def test_ppo_keeps_the_last_good_state_and_says_where(tokenizer, prompts, tmp_path):
    """The rate becomes absurd in mid-run; the resume point and the delivered state are of the update before."""
    trainer = make_trainer(tokenizer, prompts, folder=tmp_path, resume_minutes=0)

    def absurd(optimizer, *ignored):
        optimizer.param_groups[0]["lr"] *= 1e42 if trainer.updates_done == 1 else 1

    trainer.optimizer.register_step_pre_hook(absurd)
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    assert re.match(r"ppo: update 2: the weights policy\.\S+ are no longer finite; try a lower ", str(caught.value))
    assert str(caught.value).endswith(f"; {tmp_path / 'resume'} holds the state after update 1")
    assert is_finite(tmp_path / "resume" / "weights.safetensors")
    resumed = make_trainer(tokenizer, prompts, folder=tmp_path, resume_minutes=0)
    assert [row["update"] for row in resumed.train()] == [1, 2, 3, 4]


def test_ppo_at_an_absurd_rate_saves_nothing_at_all(tokenizer, prompts, tmp_path):
    with pytest.raises(TrainingError, match=r"^ppo: update \d: (the weights|epoch|sampling)"):
        make_trainer(tokenizer, prompts, folder=tmp_path, learning_rate=1e30, critic_learning_rate=1e-3).train()
    resume = tmp_path / "resume" / "weights.safetensors"
    assert not resume.exists()


def test_numbers_of_other_models_name_the_model_and_show_the_response(tokenizer, prompts):
    broken = make_policy()
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    message = "^ppo: update 1: the log-probability by the reference is not a finite number for .* '.*' to prompt 'w"
    with pytest.raises(TrainingError, match=message):
        make_trainer(tokenizer, prompts, reference=broken).train()
    trainer = make_trainer(tokenizer, prompts)
    with torch.no_grad():
        trainer.models.value_head.bias.fill_(torch.inf)
    with pytest.raises(TrainingError, match="the value by the critic is not a finite number for response"):
        trainer.train()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (float("nan"), "returned nan for response"),
        (float("-inf"), "returned -inf for response"),
        (1e300, "returned 1e\\+300 for response"),  # finite, but not in the 32 bits it would be learnt from
        (10**5000, "returned an integer beyond 3.4e38 for response"),
    ],
    ids=["NaN", "infinite", "beyond 32 bits", "a huge integer"],
)
def test_a_reward_that_is_no_number_to_learn_from(tokenizer, prompts, score, message):
    with pytest.raises(RewardError, match=f"^ppo: update 1: reward <lambda> {message} '"):
        make_trainer(tokenizer, prompts, lambda prompts, responses: [score] * len(responses)).train()


def test_rewards_whose_squares_overflow(tokenizer, prompts):
    def reward(prompts, responses):
        return [1e30 * len(response) for response in responses]

    with pytest.raises(TrainingError, match=r"ppo: update 1: epoch 1, .*value_loss inf.*; try .* or smaller rewards"):
        make_trainer(tokenizer, prompts, reward).train()


def silent_policy():
    """It answers everything by EOS alone."""
    policy = make_policy()
    with torch.no_grad():
        direction = policy.lm_head.weight[EOS]
        policy.transformer.ln_f.bias.copy_(200 * direction / direction.square().sum())
    return policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entropy_floor": 0.01}, "update 1: collapse: entropy .* below entropy_floor 0.01; try a larger kl_coef"),
        ({"identical_patience": 2}, "update 2: collapse: all responses have been '' for 2 updates; try a larger"),
    ],
)
def test_a_policy_that_says_one_thing_only_has_collapsed(tokenizer, prompts, changes, message):
    trainer = make_trainer(tokenizer, prompts, policy=silent_policy(), **changes)
    trainer.train()
    assert re.match(message, trainer.stopped)


def test_a_policy_that_ran_away_has_collapsed(tokenizer, prompts):
    trainer = make_trainer(tokenizer, prompts, episodes=640, learning_rate=0.05, kl_ceiling=5.0)
    trainer.train()
    assert re.match(r"update \d+: collapse: KL .* nats a response is above kl_ceiling 5; try", trainer.stopped)
