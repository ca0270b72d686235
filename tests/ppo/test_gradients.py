"""The gradient that an update takes: right, and the same however the batch is split."""

import dataclasses

import pytest
import torch

from minirlhf.models.logprobs import Sequences
from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.ppo.advantages import compute_targets
from minirlhf.ppo.losses import policy_losses, value_losses
from minirlhf.ppo.optimization import SUMS, _minibatches, minibatch_gradient
from minirlhf.runtime.memory import BatchSize
from tests.ppo.conftest import count_w7, make_policy

SETTINGS = dict(episodes=16, batch_size=16, max_new_tokens=8, temperature=0.7, kl_coef=0.1)


def make_trainer(tokenizer, prompts, **changes):
    config = PPOConfig(**{**SETTINGS, **changes})
    trainer = PPOTrainer(config, make_policy(), tokenizer, count_w7, prompts, device="cpu")
    torch.manual_seed(5)
    with torch.no_grad():  # a critic that says something, so that values and their gradients are not all 0
        trainer.models.value_head.weight.normal_(std=0.2)
    return trainer


def moved(trainer):
    """A trajectory and its targets; policy and critic have moved on since, so ratios are not 1 and both clips work."""
    trajectory = trainer.rollout()
    targets = compute_targets(trajectory, trainer.config, trainer.kl_coef)
    torch.manual_seed(6)
    with torch.no_grad():
        for _, parameter in trainer.models.named_trainable():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return trajectory, targets


def batches_of(size):
    return BatchSize(size, "ppo: micro_batch_size", "less")


def gradient(trainer, trajectory, targets, **changes):
    models = dataclasses.replace(trainer.models, **changes)
    sums, tokens, _ = minibatch_gradient(
        models, trajectory, targets, list(range(16)), trainer.config, trainer.processes
    )
    gradients = [parameter.grad.flatten() for _, parameter in trainer.models.named_trainable()]
    return dict(zip(SUMS, (sums / tokens).tolist(), strict=True)), torch.cat(gradients).clone()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_however_a_batch_is_split_the_gradient_agrees(tokenizer, prompts, critic):
    trainer = make_trainer(tokenizer, prompts, critic=critic)
    trajectory, targets = moved(trainer)
    assert len(set(trajectory.response_length.tolist())) > 1  # a mean of means would show
    whole, expected = gradient(trainer, trajectory, targets, micro_batch=batches_of(16))
    assert 0 < whole["clip_fraction"] < 1 and 0 < whole["value_clip_fraction"] < 1
    for size in (1, 3, 8):
        statistics, gradients = gradient(trainer, trajectory, targets, micro_batch=batches_of(size))
        assert statistics == pytest.approx(whole, rel=1e-5, abs=1e-7)
        assert (gradients - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_ratio_is_1_on_the_first_minibatch(tokenizer, prompts, critic):
    """Defect 10: what is sampled (left padding, key-value cache) is what the loss differentiates (right padding)."""
    trainer = make_trainer(tokenizer, prompts, critic=critic, micro_batch_size=3)
    assert trainer.update()["ratio_error"] < 1e-5


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_values_of_the_rollout_are_those_of_the_update(tokenizer, prompts, critic):
    trainer = make_trainer(tokenizer, prompts, critic=critic)
    trajectory = trainer.rollout()
    batch = Sequences.pack(trajectory.prompt_ids, trajectory.response_ids, "cpu")
    _, values = trainer.models.forward(batch, 0.7)
    assert values.abs().mean() > 0.05
    torch.testing.assert_close(trajectory.values[trajectory.response_mask], values.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_finite_differences_of_the_whole_loss(tokenizer, prompts, critic):
    """In float64: the gradient along random directions against (loss(+h) - loss(-h)) / 2h, the loss written anew."""
    trainer = make_trainer(tokenizer, prompts, critic=critic, micro_batch_size=5)
    trajectory, targets = moved(trainer)
    for module in (trainer.models.policy.model, trainer.models.critic_trunk, trainer.models.value_head):
        if module is not None:
            module.double()
    double = {
        field.name: value.double()
        for record in (trajectory, targets)
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), torch.Tensor) and value.is_floating_point()
    }
    trajectory = dataclasses.replace(trajectory, **{k: v for k, v in double.items() if hasattr(trajectory, k)})
    targets = dataclasses.replace(targets, **{k: v for k, v in double.items() if hasattr(targets, k)})
    mask, config = trajectory.response_mask, trainer.config
    batch = Sequences.pack(trajectory.prompt_ids, trajectory.response_ids, "cpu")

    def loss():
        with torch.no_grad():
            logprobs, values = trainer.models.forward(batch, config.temperature)
        policy = policy_losses(logprobs, trajectory.logprobs[mask], targets.advantages[mask], config.clip_range)
        value = value_losses(values, trajectory.values[mask], targets.returns[mask], config.value_clip_range)
        return float(policy.mean() + config.value_coef * value.mean())

    _, gradients = gradient(trainer, trajectory, targets)
    parameters = [parameter for _, parameter in trainer.models.named_trainable()]
    step = 1e-6
    for seed in range(4):
        torch.manual_seed(seed)
        direction = [torch.randn_like(parameter) for parameter in parameters]

        def move(size, direction=direction):
            with torch.no_grad():
                for parameter, along in zip(parameters, direction, strict=True):
                    parameter.add_(along, alpha=size)

        move(step)
        above = loss()
        move(-2 * step)
        below = loss()
        move(step)
        expected = (above - below) / (2 * step)
        actual = float(gradients @ torch.cat([along.flatten() for along in direction]))
        assert actual == pytest.approx(expected, rel=1e-5)


def test_bf16_ratio_is_near_1(tokenizer, prompts):
    """Not to rounding of fp32: sampling and update round differently. docs/ppo.md says what is seen."""
    config = PPOConfig(**SETTINGS)
    trainer = PPOTrainer(config, make_policy(), tokenizer, count_w7, prompts, device="cpu", precision="bf16")
    row = trainer.update()
    assert row["ratio_error"] < 0.1
    assert trainer.models.policy.model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_prompt_of_several_episodes_runs_once_and_the_gradient_stays(tokenizer, prompts, critic):
    trainer = make_trainer(tokenizer, prompts, critic=critic, samples_per_prompt=4, minibatches=2)
    trajectory, targets = moved(trainer)
    assert [trajectory.prompt_ids[i] for i in range(0, 16, 4)] == [trajectory.prompt_ids[i] for i in range(3, 16, 4)]
    assert len({tuple(ids) for ids in trajectory.prompt_ids}) == 4 and len(set(trajectory.responses)) > 4
    assert trainer.models.shares
    _, expected = gradient(trainer, trajectory, targets, shares=False)
    tokens = []
    trainer.models.policy.trunk.wte.register_forward_pre_hook(lambda module, ids: tokens.append(ids[0].numel()))
    for size in (16, 6, 1):
        statistics, gradients = gradient(trainer, trajectory, targets, micro_batch=batches_of(size))
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
        if size == 16:
            whole = 16 * max(
                len(p) + len(r) - 1 for p, r in zip(trajectory.prompt_ids, trajectory.response_ids, strict=True)
            )
            assert sum(tokens) < whole


def test_minibatches_keep_the_samples_of_a_prompt_together():
    config = PPOConfig(**SETTINGS | {"samples_per_prompt": 4, "minibatches": 2, "ppo_epochs": 3})
    chosen = [rows for _, _, rows in _minibatches(config, seed=1, update=0)]
    assert len(chosen) == 6 and all(
        sorted(one + other) == list(range(16)) for one, other in zip(chosen[::2], chosen[1::2], strict=True)
    )
    assert all(
        rows[at : at + 4] == list(range(rows[at], rows[at] + 4)) and rows[at] % 4 == 0
        for rows in chosen
        for at in (0, 4)
    )
    assert chosen[0] != chosen[2] or chosen[2] != chosen[4]


def test_samples_that_do_not_divide_a_minibatch_are_refused():
    with pytest.raises(ValueError, match="samples_per_prompt .3. must divide batch_size / minibatches .8."):
        PPOConfig(**SETTINGS | {"samples_per_prompt": 3, "minibatches": 2})
