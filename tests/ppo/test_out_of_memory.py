"""PPO where memory runs out, really (an allocator is asked for petabytes), and where it is saved.

tests/test_plan.py measures how much checkpointing saves.
"""

import pytest
import torch
from transformers import GPT2ForSequenceClassification

from minirlhf.ppo import LoRAConfig, PPOConfig, PPOTrainer
from minirlhf.ppo.advantages import compute_targets
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.memory import BatchSize
from minirlhf.sampling.draw import episode_seeds
from minirlhf.sampling.generate import generate
from tests.ppo.conftest import EOS, make_policy
from tests.ppo.test_gradients import gradient, make_trainer, moved
from tests.runtime.test_memory import rows_that_fit


def limit_rows(module, limit, backward=False):
    """Let a module run out of memory on more rows than the limit, in its forward or in its backward pass."""

    def check(module, arguments, output):
        if not backward:
            rows_that_fit(output.shape[0], limit)
        elif output.requires_grad:
            output.register_hook(lambda gradient: rows_that_fit(gradient.shape[0], limit))

    return module.register_forward_hook(check)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_gradient_is_the_same_after_halving(tokenizer, prompts, critic, backward, capsys):
    """In the backward pass memory runs out in the middle: gradients of the layers above are there already."""
    trainer = make_trainer(tokenizer, prompts, critic=critic)
    trajectory, targets = moved(trainer)
    expected_statistics, expected = gradient(trainer, trajectory, targets)
    trunks = [trainer.models.policy.trunk] + [trainer.models.critic_trunk] * (critic == "separate")
    for trunk in trunks:
        limit_rows(trunk.h[0].mlp, 5, backward)
    trainer.models.micro_batch.size = 16
    statistics, actual = gradient(trainer, trajectory, targets)
    assert trainer.models.micro_batch.size == 4
    assert "ppo: micro_batch_size: out of memory at 16; going on with 8" in capsys.readouterr().err
    assert statistics == pytest.approx(expected_statistics, rel=1e-5, abs=1e-7)
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


def test_memory_that_runs_out_after_some_micro_batches_counts_none_of_them_twice(tokenizer, prompts):
    trainer = make_trainer(tokenizer, prompts)
    trajectory, targets = moved(trainer)
    _, expected = gradient(trainer, trajectory, targets)
    passes = []
    trainer.models.policy.trunk.register_forward_hook(lambda *ignored: passes.append(1))
    trainer.models.policy.trunk.register_forward_hook(lambda *ignored: rows_that_fit(len(passes) == 3, 0))
    trainer.models.micro_batch.size = 4
    _, actual = gradient(trainer, trajectory, targets)
    assert len(passes) == 3 + 8
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


def test_a_run_goes_on_with_smaller_batches_and_says_so_once(tokenizer, prompts, capsys):
    def run(limit):
        torch.manual_seed(3)
        config = make_policy().config
        config.num_labels, config.pad_token_id = 1, EOS
        classifier = GPT2ForSequenceClassification(config)
        reward = RewardModel(classifier, tokenizer, batch_size=16)
        settings = PPOConfig(episodes=32, batch_size=16, max_new_tokens=8, temperature=1.0, learning_rate=1e-3)
        trainer = PPOTrainer(settings, make_policy(), tokenizer, reward, prompts, device="cpu")
        if limit:
            for trunk in (trainer.models.policy.trunk, trainer.models.reference.trunk, classifier.base_model):
                limit_rows(trunk.h[1].mlp, limit)
        return trainer, trainer.train()

    _, expected = run(limit=None)
    trainer, rows = run(limit=6)
    assert (trainer.models.micro_batch.size, trainer.models.rollout_batch.size) == (4, 4)
    assert trainer.reward.batch_size.size == 4
    said = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert len(said) == 2 + 4 + 2  # 16, 8; 64, 32, 16, 8; 16, 8: and not again in the second update
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_where_one_episode_is_too_much_one_line_says_what_to_try(tokenizer, prompts):
    trainer = make_trainer(tokenizer, prompts, micro_batch_size=2)
    trajectory, targets = moved(trainer)
    limit_rows(trainer.models.policy.trunk.h[0].mlp, 0)
    with pytest.raises(UserError, match="ppo: micro_batch_size is 1 .* gradient_checkpointing, precision bf16, lora"):
        gradient(trainer, trajectory, targets)


@pytest.mark.parametrize("samples", [1, 2])
def test_sampling_gives_the_same_responses(samples):
    prompts = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [11]]
    options = dict(max_new_tokens=8, temperature=1.0, eos_token_id=EOS, pad_token_id=EOS, samples_per_prompt=samples)
    options["seeds"] = episode_seeds(0, 0, 5 * samples)
    expected = generate(make_policy(), prompts, **options)
    policy, finished = make_policy(), []
    steps = []
    policy.transformer.register_forward_hook(lambda *ignored: steps.append(1))
    # in the middle of decoding, when some tokens are written already
    hook = lambda module, arguments, output: rows_that_fit(output.shape[0] if len(steps) > 3 else 0, 3)  # noqa: E731
    policy.transformer.h[0].mlp.register_forward_hook(hook)
    size = BatchSize(8, "batch_size", "less")
    actual = generate(policy, prompts, batch_size=size, progress=finished.append, **options)
    assert size.size == 2 and sum(finished) == 5 * samples
    assert actual.token_ids() == expected.token_ids()
    for name in ("response_ids", "ended", "logprobs"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))


@pytest.mark.parametrize("changes", [{}, {"critic": "separate"}, {"lora": LoRAConfig(rank=4)}], ids=str)
def test_checkpointing_changes_no_gradient_and_only_the_update(tokenizer, prompts, changes):
    trainers = [make_trainer(tokenizer, prompts, gradient_checkpointing=on, **changes) for on in (False, True)]
    (_, expected), (_, actual) = (gradient(trainer, *moved(trainer)) for trainer in trainers)
    assert (actual - expected).norm() <= 1e-6 * expected.norm()

    models, passes = trainers[1].models, []
    assert len(models.checkpointed) == 2 * (1 + ("critic" in changes)) and not trainers[0].models.checkpointed
    attention, dropout = models.checkpointed[0].attn, models.checkpointed[0].mlp.dropout
    attention.register_forward_pre_hook(lambda *ignored: passes.append(dropout.training))
    trajectory = trainers[1].rollout()
    sampling = len(passes)
    trainers[1].learn(trajectory, compute_targets(trajectory, trainers[1].config, 0.1))
    assert len(passes) - sampling == 2 * trainers[1].config.ppo_epochs  # forward, and again in the backward pass
    assert not any(passes)  # dropout is off in both
    assert not any(layer.training or layer.gradient_checkpointing for layer in models.checkpointed)
