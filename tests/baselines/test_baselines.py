"""RLOO, GRPO and DPO on tiny models: rewards and probabilities as promised, and learning in a known direction."""

import json

import pytest
import torch

from minirlhf.baselines import dpo, online
from minirlhf.baselines.align import align
from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.runtime.errors import UserError
from minirlhf.sampling.summaries import sample
from minirlhf.settings.params import parse_params

PROMPTS = {"train": [f"{'word ' * n}TL;DR:" for n in range(1, 17)], "validation": ["my cat TL;DR:"] * 32}
LORA = {"rank": 2, "alpha": 4, "target_modules": ["c_attn"]}


@pytest.fixture
def make_params(make_settings):
    def make(algorithm, lora=None, **section):
        settings = make_settings() | {"algorithm": algorithm}
        settings["ppo"] |= {"temperature": 0.9, "max_new_tokens": 8, "missing_eos_penalty": 0.0, "lora": lora}
        settings[algorithm] |= section
        return parse_params(json.dumps(settings), "params.yaml")

    return make


def ascii_share(prompts, responses):
    """A rule that any policy can learn: the share of characters that are ASCII."""
    return [sum(map(str.isascii, text)) / max(1, len(text)) for text in responses]


def share_of_a(prompts, responses):
    """The share of letters that are `a`."""
    return [text.count("a") / max(1, len(text)) for text in responses]


def test_rewards_are_of_the_text_with_its_end_and_cost_what_is_cut(small_bpe):
    seen = {}

    def reward(prompts, responses, ended):
        seen.update(prompts=prompts, responses=responses, ended=ended)
        return [2.0, 3.0]

    logged = {}
    score = online.text_reward(reward, small_bpe, 0.5)
    ids = small_bpe(" my cat left.")["input_ids"]
    whole = [*ids, small_bpe.eos_token_id]
    found = score(["p", "q"], [whole, ids], log_metric=logged.__setitem__, completions=["", ""])
    assert found == [2.0, 2.5]
    assert seen == {"prompts": ["p", "q"], "responses": [" my cat left."] * 2, "ended": [True, False]}
    assert logged == {"score": 2.5, "ended": 0.5}


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_log_probabilities_are_those_of_the_sampler_whatever_the_padding(algorithm, make_params, tiny_models, tmp_path):
    """Prompts of unequal length in one batch: GPT-2 left to itself would count the padding as positions."""
    from trl.trainer.utils import pad

    from minirlhf.sampling.generate import generate
    from minirlhf.text.prompts import encode_all

    folder = str(tiny_models / "sft")
    policy, tokenizer = load_policy(folder), load_tokenizer(folder)
    made = online.make_trainer(policy, tokenizer, ascii_share, PROMPTS["train"], make_params(algorithm), str(tmp_path))
    prompts = encode_all(tokenizer, [PROMPTS["train"][0], PROMPTS["train"][9]])
    options = {"max_new_tokens": 8, "temperature": 0.9, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    sampled = generate(policy, prompts, seeds=[1, 2], **options)
    responses = sampled.token_ids()

    def padded(rows, side, ones=False):
        rows = [torch.ones(len(row), dtype=torch.long) if ones else torch.tensor(row) for row in rows]
        return pad(rows, padding_value=0, padding_side=side)

    ids = torch.cat([padded(prompts, "left"), padded(responses, "right")], 1)
    mask = torch.cat([padded(prompts, "left", True), padded(responses, "right", True)], 1)
    width = sampled.logprobs.shape[1]
    for model in (made.model, made.ref_model):  # the same weights
        logprobs, _, _ = made._get_per_token_logps_and_entropies(model, ids, mask, width, batch_size=1)
        assert torch.allclose(logprobs, sampled.logprobs, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_reward_rises_on_a_rule_and_the_reference_stays(algorithm, make_params, tiny_models):
    params = make_params(
        algorithm, episodes=1024, batch_size=32, micro_batch_size=32, num_generations=4, num_iterations=2,
        learning_rate=0.02, beta=0.001,
    )  # fmt: skip
    found = align(str(tiny_models / "sft"), ascii_share, PROMPTS, [], params, "cpu")
    first, last = found.history[0], found.history[-1]
    assert last["eval_reward"] > first["eval_reward"] + 0.2
    assert abs(first["eval_kl"]) < 1e-4 and last["eval_kl"] > 0.1
    assert [row["update"] for row in found.history] == list(range(33))
    assert [row["episodes"] for row in found.history][-1] == 1024
    columns = {"reward", "kl", "length", "ended", "entropy", "policy_loss", "clip_fraction", "policy_grad_norm"}
    assert all(row[column] is not None for row in found.history[1:] for column in columns)
    assert 1 <= last["length"] <= 8 and last["value_loss"] is None
    assert [sample["update"] for sample in found.samples] == [0] * 4 + [32] * 4


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "dpo"])
def test_with_adapters_only_they_are_trained_and_merged_weights_are_delivered(algorithm, make_params, tiny_models):
    rows = [{"prompt": prompt, "chosen": " aaaa", "rejected": " my cat"} for prompt in PROMPTS["train"]]
    sizes = {"episodes": 64, "batch_size": 16, "micro_batch_size": 16, "learning_rate": 0.02}
    sizes |= {} if algorithm == "dpo" else {"num_generations": 4, "num_iterations": 1}
    found = align(str(tiny_models / "sft"), ascii_share, PROMPTS, rows, make_params(algorithm, LORA, **sizes), "cpu")
    before, after = load_policy(str(tiny_models / "sft")).state_dict(), found.policy.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("c_attn.weight")}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], tol=1e-5) <= 2


def test_dpo_widens_the_margin_towards_what_was_chosen(make_params, tiny_models):
    rows = [{"prompt": prompt, "chosen": " aaaa", "rejected": " my cat"} for prompt in PROMPTS["train"]]
    params = make_params("dpo", episodes=64, batch_size=16, micro_batch_size=8, learning_rate=0.01, beta=0.1)
    found = align(str(tiny_models / "sft"), share_of_a, PROMPTS, rows, params, "cpu")
    margins = [row["margin"] for row in found.history[1:]]
    assert margins[0] == pytest.approx(0, abs=1e-5) and margins == sorted(margins) and margins[-1] > 0.1
    assert found.history[1]["policy_loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: the policy is the reference
    assert found.history[-1]["eval_reward"] > found.history[0]["eval_reward"]
    assert found.history[-1]["reward"] is None


def test_held_out_prompts_are_sampled_together_however_few_fit_an_update(make_params, tiny_models, monkeypatch):
    drawn = []

    def sampled(*arguments, **options):
        drawn.append(options["batch_size"])
        return sample(*arguments, **options)

    monkeypatch.setattr("minirlhf.baselines.align.sample", sampled)
    rows = [{"prompt": prompt, "chosen": " aaaa", "rejected": " my cat"} for prompt in PROMPTS["train"]]
    params = make_params("dpo", episodes=2, batch_size=2, micro_batch_size=1)
    align(str(tiny_models / "sft"), share_of_a, PROMPTS, rows, params, "cpu")
    assert drawn == [params.ppo.rollout_batch_size] * 2 and drawn[0] > 1  # before and after


@pytest.mark.parametrize("algorithm, lora", [("rloo", None), ("grpo", None), ("dpo", None), ("rloo", LORA)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(algorithm, lora, make_params, tiny_models, tmp_path):
    """Over several epochs: the order of the prompts and the random streams of the responses are part of the state."""
    comparisons = [{"prompt": prompt, "chosen": " aaaa", "rejected": " my cat"} for prompt in PROMPTS["train"]]
    sizes = {"episodes": 56, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 0.02}
    sizes |= {} if algorithm == "dpo" else {"num_generations": 2, "num_iterations": 2}
    prompts = PROMPTS | {"train": PROMPTS["train"][:9]}  # two updates an epoch, and one prompt is left over
    params = make_params(algorithm, lora, **sizes).model_copy(update={"resume_minutes": 0.0})
    assert params.aligner.updates == 7

    def run(folder, on_row=None):
        arguments = prompts, comparisons[:9], params, "cpu", folder, on_row
        found = align(str(tiny_models / "sft"), ascii_share, *arguments)
        return found.history, found.samples, {name: w.clone() for name, w in found.policy.state_dict().items()}

    def kill(rows):
        if rows[-1]["update"] == 5:
            raise KeyboardInterrupt

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, kill)
    seen = []
    resumed = run(tmp_path, lambda rows: seen.append(rows[-1]["update"]))
    assert seen == [5, 6, 7]  # it went on from the point after the fourth
    assert resumed[:2] == whole[:2]
    assert all(torch.equal(weights, resumed[2][name]) for name, weights in whole[2].items())


def test_comparisons_end_only_where_they_ended(small_bpe):
    row = {"prompt": "cat", "chosen": " left", "rejected": " my", "rejected_ended": False}
    ids = dpo.encode_comparison(small_bpe, row)
    assert ids["chosen_ids"][-1] == small_bpe.eos_token_id
    assert small_bpe.eos_token_id not in ids["rejected_ids"] + ids["prompt_ids"]
    assert small_bpe.decode(ids["prompt_ids"] + ids["rejected_ids"]) == "cat my"


def test_data_that_fill_no_batch_are_refused(make_params, tiny_models):
    sft = str(tiny_models / "sft")
    few = {"train": PROMPTS["train"][:3], "validation": PROMPTS["validation"][:1]}
    with pytest.raises(UserError, match=r"rloo.batch_size: a batch needs 4 prompts, and there are 3"):
        align(sft, ascii_share, few, [], make_params("rloo"), "cpu")
    with pytest.raises(UserError, match=r"dpo.batch_size: a batch needs 8 comparisons, and there are 0"):
        align(sft, ascii_share, PROMPTS, [], make_params("dpo"), "cpu")
