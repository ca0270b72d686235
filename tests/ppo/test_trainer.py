"""The trainer as a whole, and the defects of earlier implementations that shared/reference of this field lists.

docs/ppo.md maps each defect to its test.
"""

import dataclasses
import math

import pytest
import torch
from datasets import Dataset

from minirlhf.ppo import LoRAConfig, PPOConfig, PPOTrainer
from minirlhf.ppo.advantages import compute_targets
from minirlhf.ppo.monitor import Alarms, batch_statistics
from minirlhf.ppo.optimization import TrainingError, learning_rate_factor
from minirlhf.rewards.text import RewardError
from minirlhf.runtime.errors import UserError
from minirlhf.sampling.generate import generate
from tests.ppo.conftest import EOS, count_w7, make_policy

SETTINGS = dict(episodes=32, batch_size=16, ppo_epochs=2, max_new_tokens=8, learning_rate=1e-3, temperature=1.0)


def make_trainer(tokenizer, prompts, reward=count_w7, policy=None, **changes):
    arguments = {key: changes.pop(key) for key in list(changes) if key not in PPOConfig.model_fields}
    config = PPOConfig(**{**SETTINGS, **changes})
    return PPOTrainer(config, policy or make_policy(), tokenizer, reward, prompts, device="cpu", **arguments)


def weights(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(before, module):
    return [name for name, parameter in module.named_parameters() if not torch.equal(before[name], parameter)]


@pytest.mark.parametrize("minibatches", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 16])
def test_optimizer_steps_are_epochs_times_minibatches(tokenizer, prompts, minibatches, micro_batch_size):
    """Defect 1: and micro-batches change nothing about it."""
    trainer = make_trainer(tokenizer, prompts, minibatches=minibatches, micro_batch_size=micro_batch_size)
    steps = []
    trainer.optimizer.register_step_post_hook(lambda *ignored: steps.append(1))
    history = trainer.train()
    assert len(steps) == 2 * 2 * minibatches == history[-1]["optimizer_steps"]


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_policy_and_critic_move_and_the_reference_does_not(tokenizer, prompts, critic):
    trainer = make_trainer(tokenizer, prompts, critic=critic)
    models = trainer.models
    modules = [models.policy.model, models.value_head, models.reference.model]
    modules += [models.critic_trunk] if critic == "separate" else []
    before = [weights(module) for module in modules]
    trainer.train()
    assert len(changed(before[0], modules[0])) == len(before[0])
    assert changed(before[1], modules[1])
    assert not changed(before[2], modules[2])
    if critic == "separate":
        assert changed(before[3], modules[3])


def test_ends_are_known_by_lengths(tokenizer, prompts):
    """Defect 3: the padding token is EOS; real EOS tokens get their reward, log-probability and gradient."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == EOS
    trainer = make_trainer(tokenizer, prompts, reward=lambda prompts, responses, ended: [5.0 * e for e in ended])
    trajectory = trainer.rollout()
    assert trajectory.ended.any() and not trajectory.ended.all()
    for row, (ids, ended) in enumerate(zip(trajectory.response_ids, trajectory.ended.tolist(), strict=True)):
        assert (ids[-1] == EOS) == ended
        assert trajectory.response_mask[row].sum() == len(ids)
        assert trajectory.scores[row, len(ids) - 1] == 5.0 * ended
        assert trajectory.logprobs[row, len(ids) - 1] < 0


def test_a_policy_with_too_few_embeddings_is_refused(tokenizer, prompts):
    """Defect 3: a [PAD] id added without resizing would be read outside the embeddings."""
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, eos_token="<eos>", pad_token="[PAD]")
    with pytest.raises(UserError, match="32 embeddings are too few for the tokenizer's 33 tokens"):
        make_trainer(tokenizer, prompts)


def test_statistics_see_real_tokens_only(tokenizer, prompts):
    """Defect 6: whatever stands in the padding changes no statistic, advantage or return."""
    trainer = make_trainer(tokenizer, prompts)
    trajectory = trainer.rollout()
    mask = trajectory.response_mask
    assert not mask.all()
    polluted = dataclasses.replace(
        trajectory,
        **{
            name: torch.where(mask, getattr(trajectory, name), 1e6)
            for name in ("logprobs", "reference_logprobs", "values")
        },
        scores=trajectory.scores,
    )
    clean, dirty = (compute_targets(each, trainer.config, 0.1) for each in (trajectory, polluted))
    for field in dataclasses.fields(clean):
        torch.testing.assert_close(getattr(dirty, field.name), getattr(clean, field.name))
    assert batch_statistics(polluted, dirty) == pytest.approx(batch_statistics(trajectory, clean), rel=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_kl_logged_is_the_kl_penalised(tokenizer, prompts, estimator):
    """Defect 7: objective = reward - penalty - kl_coef x KL, with the row's own numbers."""
    trainer = make_trainer(tokenizer, prompts, kl_estimator=estimator, kl_coef=0.3, learning_rate=1e-2)
    rows = trainer.train()
    assert rows[-1]["kl"] > 0.01
    for row in rows:
        expected = row["reward"] - (1 - row["ended"]) - row["kl_coef"] * row["kl"]
        assert row["objective"] == pytest.approx(expected, abs=1e-4)


def test_the_learning_rate_is_that_of_the_step_taken(tokenizer, prompts):
    """Defect 8: the first step is taken at the peak rate, the last at 1 / steps of it; nothing is skipped."""
    trainer = make_trainer(tokenizer, prompts, minibatches=2)
    rates = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *ignored: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.train()
    assert rates == pytest.approx([1e-3 * (1 - step / 8) for step in range(8)])


def test_learning_rate_schedules():
    def factors(**changes):
        config = PPOConfig(episodes=640, batch_size=64, ppo_epochs=1, **changes)
        return [learning_rate_factor(config, step) for step in range(10)]

    assert factors(lr_schedule="constant") == [1.0] * 10
    assert factors(warmup=0.2) == pytest.approx([0.5, 1.0] + [1 - step / 8 for step in range(8)])
    cosine = factors(lr_schedule="cosine")
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5) and cosine == sorted(cosine, reverse=True)


def test_gradients_are_clipped(tokenizer, prompts):
    """Defect 8: the norm that the optimizer sees is max_grad_norm, the norm in the log is the one before."""
    trainer = make_trainer(tokenizer, prompts, max_grad_norm=0.01)
    norms = []

    def norm(optimizer, *ignored):
        for group in optimizer.param_groups:
            norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in group["params"])))

    trainer.optimizer.register_step_pre_hook(norm)
    rows = trainer.train()
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
    assert rows[0]["policy_grad_norm"] > 0.02


def test_advantages_are_whitened_over_the_global_batch(tokenizer, prompts):
    """Defect 8: not by micro-batch, minibatch or process (test_processes.py has two of those)."""
    trainer = make_trainer(tokenizer, prompts, minibatches=4, micro_batch_size=2)
    trajectory = trainer.rollout()
    advantages = compute_targets(trajectory, trainer.config, 0.05).advantages[trajectory.response_mask]
    assert advantages.mean().abs() < 1e-5 and advantages.std() == pytest.approx(1.0, abs=1e-4)


def test_the_checkpoints_generation_settings_do_not_leak(tokenizer, prompts):
    """Defect 9: an untrained policy is its own reference, so the KL is 0 token by token, never negative."""
    policy = make_policy()
    policy.generation_config.update(top_k=2, min_new_tokens=8, repetition_penalty=3.0, temperature=0.1)
    trajectory = make_trainer(tokenizer, prompts, policy=policy).rollout()
    assert (trajectory.logprobs - trajectory.reference_logprobs).abs().max() < 1e-5
    assert trajectory.response_ids == make_trainer(tokenizer, prompts).rollout().response_ids


def test_the_scores_of_all_steps_are_not_kept(tokenizer, prompts):
    """Defect 11: no tensor of a rollout has the vocabulary as a dimension of its own beside the response's."""
    trajectory = make_trainer(tokenizer, prompts).rollout()
    for field in dataclasses.fields(trajectory):
        value = getattr(trajectory, field.name)
        if isinstance(value, torch.Tensor):
            assert value.numel() <= 16 * 8


def test_a_score_a_token(tokenizer, prompts):
    def reward(prompts, responses, response_ids):
        return [[float(token == 7) for token in ids] for ids in response_ids]

    trajectory = make_trainer(tokenizer, prompts, reward=reward).rollout()
    for row, ids in enumerate(trajectory.response_ids):
        expected = [float(token == 7) for token in ids]
        assert trajectory.scores[row, : len(ids)].tolist() == expected


@pytest.mark.parametrize("fault", ["raise", "count", "nan"])
def test_a_failing_reward_stops_training_and_the_last_checkpoint_stands(tokenizer, prompts, fault, tmp_path):
    calls = []

    def reward(prompts, responses):
        calls.append(1)
        if len(calls) < 3:
            return count_w7(prompts, responses)
        if fault == "raise":
            raise ValueError("no connection")
        return [1.0] if fault == "count" else [math.nan] * len(responses)

    def make():
        return make_trainer(tokenizer, prompts, reward=reward, episodes=64, resume_minutes=0, folder=tmp_path)

    with pytest.raises(RewardError, match="reward reward .*response '"):
        make().train()
    calls.clear()
    calls += [1] * -100  # from here on it works
    resumed = make()
    fault = "none"
    resumed.reward = count_w7
    assert [row["update"] for row in resumed.train()] == [1, 2, 3, 4]


def test_prompts_may_be_a_dataset_texts_or_ids(tokenizer, prompts):
    ids = tokenizer(prompts)["input_ids"]
    rollouts = [
        make_trainer(tokenizer, each).rollout()
        for each in (prompts, ids, Dataset.from_dict({"prompt": prompts}), Dataset.from_dict({"prompt": ids}))
    ]
    for each in rollouts:
        assert each.response_ids == rollouts[0].response_ids and each.prompts == rollouts[0].prompts
    with pytest.raises(UserError, match="none named 'prompt'"):
        make_trainer(tokenizer, Dataset.from_dict({"text": prompts}))
    with pytest.raises(UserError, match="prompt 1 is empty"):
        make_trainer(tokenizer, ["w1", ""])


def test_every_prompt_comes_once_before_any_comes_again(tokenizer, prompts):
    trainer = make_trainer(tokenizer, [f"w{index}" for index in range(8)])
    seen = trainer.rollout().prompts
    assert sorted(seen[:8]) == sorted(seen[8:]) == [f"w{index}" for index in range(8)]
    assert seen[:8] != seen[8:]


def test_temperature_is_that_of_rollout_reference_and_loss(tokenizer, prompts):
    cold = make_trainer(tokenizer, prompts, temperature=0.3)
    assert cold.rollout().logprobs.sum() > make_trainer(tokenizer, prompts).rollout().logprobs.sum()
    row = cold.update()
    assert row["ratio_error"] < 1e-5 and abs(row["kl"]) < 1e-5


def test_target_kl_ends_an_update_early(tokenizer, prompts):
    free = make_trainer(tokenizer, prompts, ppo_epochs=8, learning_rate=5e-3).update()
    held = make_trainer(tokenizer, prompts, ppo_epochs=8, learning_rate=5e-3, target_kl=1e-3).update()
    assert free["optimizer_steps"] == 8
    assert 1 <= held["optimizer_steps"] < 8


def test_adaptive_kl_coefficient_is_applied(tokenizer, prompts):
    rows = make_trainer(
        tokenizer, prompts, learning_rate=1e-2, adaptive_kl_target=1e-3, adaptive_kl_horizon=16, episodes=64
    ).train()
    coefficients = [row["kl_coef"] for row in rows]
    # The first update sees a KL of 0, the others one far above the target; the error is clipped to 20%.
    assert coefficients == pytest.approx([0.05, 0.04, 0.048, 0.0576])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kl_ceiling": 0.05, "learning_rate": 1e-2}, "KL .* above kl_ceiling 0.05"),
        ({"entropy_floor": 10.0}, "collapse: entropy .* below entropy_floor 10"),
    ],
)
def test_a_run_gone_wrong_stops_and_says_so(tokenizer, prompts, changes, message):
    import re

    trainer = make_trainer(tokenizer, prompts, episodes=320, **changes)
    rows = trainer.train()
    assert len(rows) < 20 and re.search(message, trainer.stopped)


def test_equal_responses_are_a_collapse(tokenizer, prompts):
    trainer = make_trainer(tokenizer, prompts)
    trajectory = trainer.rollout()
    same = dataclasses.replace(trajectory, response_ids=[[1, 2]] * 16)
    alarms = Alarms(trainer.config.model_copy(update={"identical_patience": 2}))
    row = {"update": 1, "kl": 0.0, "entropy": 1.0}
    assert alarms.check(row, same) is None
    assert alarms.check(row, trajectory) is None
    assert alarms.check(row, same) is None
    assert "all responses have been" in alarms.check(row, same)


def test_numbers_that_are_not_finite_stop_the_run(tokenizer, prompts):
    trainer = make_trainer(tokenizer, prompts)
    trajectory = trainer.rollout()
    targets = compute_targets(trajectory, trainer.config, 0.05)
    targets.advantages[0, 0] = math.nan
    before = weights(trainer.models.policy.model)
    with pytest.raises(TrainingError, match="epoch 1, minibatch 1: the loss is not a finite number"):
        trainer.learn(trajectory, targets)
    assert not changed(before, trainer.models.policy.model)

    broken = make_policy()
    with torch.no_grad():
        broken.lm_head.weight[3, 3] = math.nan
    with pytest.raises(UserError, match="log-probabilities are not finite"):
        make_trainer(tokenizer, prompts, policy=broken).train()


def test_evaluation_on_held_out_prompts(tokenizer, prompts, tmp_path):
    trainer = make_trainer(
        tokenizer, prompts, episodes=64, eval_every=3, eval_prompts=["w1 w2", "w3"], folder=tmp_path, snapshot_every=2
    )
    rows = trainer.train()
    assert [row["update"] for row in rows if "eval_reward" in row] == [0, 3, 4]
    assert {"eval_reward", "eval_kl", "eval_length", "eval_ended"} <= rows[-1].keys()
    assert rows[0]["eval_kl"] == pytest.approx(0.0, abs=1e-5)
    assert [sample["update"] for sample in trainer.samples] == [0, 0, 3, 3, 4, 4]
    assert {sample["prompt"] for sample in trainer.samples} == {"w1 w2", "w3"}
    snapshots = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert snapshots == ["episodes-0000032", "episodes-0000064"]
    # The delivered policy is the last one.
    ids = [[1, 2], [3]]
    expected = generate(trainer.models.policy, ids, max_new_tokens=4, temperature=0, eos_token_id=EOS, pad_token_id=EOS)
    trainer.save(tmp_path / "policy")
    policy = type(make_policy()).from_pretrained(tmp_path / "policy")
    saved = generate(policy, ids, max_new_tokens=4, temperature=0, eos_token_id=EOS, pad_token_id=EOS)
    assert saved.token_ids() == expected.token_ids()


def test_the_best_policy_is_the_best_by_reward_minus_kl(tokenizer, prompts, tmp_path):
    """Rewards rise while the policy runs away at a large learning rate: the best by the objective is not the last."""
    trainer = make_trainer(
        tokenizer, prompts, episodes=96, learning_rate=2e-2, kl_coef=0.5, deliver="best", eval_every=1,
        eval_prompts=prompts[:5], folder=tmp_path, whiten_advantages=True, critic="shared",
    )  # fmt: skip
    rows = trainer.train()
    objectives = {row["update"]: row["eval_reward"] - 0.5 * row["eval_kl"] for row in rows}
    assert trainer.best["update"] == max(objectives, key=objectives.get)
    best = next(row for row in rows if row["update"] == trainer.best["update"])
    assert trainer.delivered_episodes == best["episodes"] < rows[-1]["episodes"]
    trainer.save(tmp_path / "policy")
    best = type(make_policy()).from_pretrained(tmp_path / "best")
    delivered = type(make_policy()).from_pretrained(tmp_path / "policy")
    for name, weight in best.state_dict().items():
        assert torch.equal(weight, delivered.state_dict()[name])


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_lora_trains_adapters_and_the_reference_is_the_policy_without_them(tokenizer, prompts, critic, tmp_path):
    trainer = make_trainer(tokenizer, prompts, lora=LoRAConfig(rank=4), critic=critic, learning_rate=1e-2)
    names = [name for name, _ in trainer.models.named_trainable()]
    assert names and all("lora_" in name or name.startswith("critic.head") for name in names)
    assert any(name.startswith("critic.trunk") for name in names) == (critic == "separate")
    rows = trainer.train()
    assert rows[0]["ratio_error"] < 1e-5 and abs(rows[0]["kl"]) < 1e-5 and rows[-1]["kl"] > 1e-3
    # The reference is the policy as given, to the last bit of a fresh one.
    trajectory = trainer.rollout()
    fresh = make_trainer(tokenizer, prompts, policy=make_policy())
    plain = dataclasses.replace(trajectory)
    from minirlhf.models.logprobs import Sequences

    batch = Sequences.pack(plain.prompt_ids, plain.response_ids, "cpu")
    expected = fresh.models.reference_logprobs(batch, 1.0)
    torch.testing.assert_close(trajectory.reference_logprobs[trajectory.response_mask], expected, rtol=0, atol=1e-5)
    # Saved: merged, and the adapter besides.
    trainer.save(tmp_path / "policy")
    merged = type(make_policy()).from_pretrained(tmp_path / "policy").eval()
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(merged(ids).logits, trainer.models.policy.model(ids).logits, rtol=0, atol=1e-4)
    assert (tmp_path / "policy" / "adapter" / "adapter_model.safetensors").exists()


def test_a_pretrained_adapter_stays_in_the_reference(tokenizer, prompts):
    """TRL #4723: switching the adapter off would give the base model as the reference, not the SFT policy."""
    import peft

    adapted = peft.get_peft_model(make_policy(), peft.LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False))
    ids = torch.tensor([[1, 2, 3]])
    expected = adapted(ids).logits.detach()
    assert (expected - make_policy()(ids).logits).abs().max() > 0.01
    for lora in (None, LoRAConfig(rank=2)):
        policy = peft.get_peft_model(
            make_policy(), peft.LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False)
        )
        policy.load_state_dict(adapted.state_dict())
        trainer = make_trainer(tokenizer, prompts, policy=policy, lora=lora, learning_rate=1e-2)
        assert abs(trainer.train()[0]["kl"]) < 1e-4
        with trainer.models.adapter.disable_adapter() if lora else torch.no_grad():
            actual = trainer.models.reference.model(ids).logits
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_a_critic_may_begin_as_the_reward_model(tokenizer, prompts, tmp_path):
    """Its first value of a last state is the normalised reward there."""
    import json

    from transformers import GPT2ForSequenceClassification

    from minirlhf.rewards.model import RewardModel

    torch.manual_seed(3)
    config = make_policy().config
    config.num_labels, config.pad_token_id = 1, EOS
    classifier = GPT2ForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "reward.json").write_text(json.dumps({"mean": 0.3, "scale": 2.0, "format": "concat"}))
    trainer = make_trainer(tokenizer, prompts, critic="separate", critic_init=tmp_path)
    reward = RewardModel.load(tmp_path)
    trajectory = trainer.rollout()
    for row in range(4):
        ids = trajectory.response_ids[row]
        if len(ids) > 1:
            text = " " + " ".join(f"w{token}" for token in ids[:-1])
            value = trajectory.values[row, len(ids) - 1].item()
            assert value == pytest.approx(reward([trajectory.prompts[row]], [text], [False])[0], abs=1e-5)


def test_critic_refusals(tokenizer, prompts, tmp_path):
    from tests.ppo.conftest import make_tokenizer

    with pytest.raises(UserError, match="only a separate critic"):
        make_trainer(tokenizer, prompts, critic_init=make_policy())
    make_policy(vocab_size=16, bos_token_id=15, eos_token_id=15).save_pretrained(tmp_path)
    make_tokenizer(16).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is not the policy's"):
        make_trainer(tokenizer, prompts, critic="separate", critic_init=tmp_path)


def test_missing_arguments_are_refused(tokenizer, prompts):
    with pytest.raises(UserError, match="need eval_prompts"):
        make_trainer(tokenizer, prompts, eval_every=1)
    with pytest.raises(UserError, match="need a folder"):
        make_trainer(tokenizer, prompts, snapshot_every=1)
    with pytest.raises(UserError, match="64 positions"):
        make_trainer(tokenizer, prompts, max_new_tokens=60)


@pytest.mark.parametrize("kind", ["llama", "neox"])
def test_other_architectures(tokenizer, prompts, kind):
    from tests.ppo.test_model import make

    row = make_trainer(tokenizer, prompts, policy=make(kind)).train()[0]
    assert row["ratio_error"] < 1e-5 and abs(row["kl"]) < 1e-5
