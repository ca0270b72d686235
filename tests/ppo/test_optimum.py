"""PPO finds optima that are known exactly."""

import math

import pytest
import torch

from minirlhf.ppo import PPOConfig, PPOTrainer
from tests.ppo.conftest import count_w7, make_policy, make_tokenizer


def test_reaches_95_percent_of_the_attainable_reward_without_a_kl_penalty(tokenizer, prompts):
    """The most w7 that a response of 6 tokens can hold is 6."""
    config = PPOConfig(
        episodes=60 * 32, batch_size=32, ppo_epochs=2, minibatches=2, learning_rate=3e-3, kl_coef=0.0, temperature=1.0,
        max_new_tokens=6, missing_eos_penalty=0.0, micro_batch_size=32,
    )  # fmt: skip
    before = make_policy().state_dict()
    trainer = PPOTrainer(config, make_policy(), tokenizer, count_w7, prompts, device="cpu")
    history = trainer.train()
    assert history[0]["reward"] < 1.0
    assert sum(row["reward"] for row in history[-5:]) / 5 >= 0.95 * 6
    assert not torch.equal(before["lm_head.weight"], trainer.models.policy.model.lm_head.weight)


# The enumerable problem: a vocabulary of three words and EOS, responses of at most three tokens, two prompts.
WORDS, LIMIT, PROMPTS, TEMPERATURE, PENALTY = 3, 3, ["w0 w1", "w2"], 0.8, 0.3


def score(prompt: str, response: str) -> float:
    """Different for each prompt and order of words, so that no shortcut finds it."""
    words = [int(word[1:]) for word in response.split()]
    target = len(prompt)
    return sum(math.sin(3.0 * word + 2.0 * place + target) for place, word in enumerate(words)) + 0.5 * len(set(words))


def all_responses() -> list[list[int]]:
    """Every response there is: those that end with EOS, and those cut at the limit."""
    complete, open_ends = [], [[]]
    for _ in range(LIMIT):
        complete += [start + [WORDS] for start in open_ends]
        open_ends = [start + [word] for start in open_ends for word in range(WORDS)]
    return complete + open_ends


def response_logprobs(model, prompt_ids: list[int], responses: list[list[int]]) -> torch.Tensor:
    """Exact log-probability of each response, in float64."""
    totals = []
    for response in responses:
        logits = model(torch.tensor([prompt_ids + response])).logits[0, len(prompt_ids) - 1 : -1].double()
        logprobs = torch.log_softmax(logits / TEMPERATURE, -1)
        totals.append(logprobs.gather(-1, torch.tensor(response)[:, None]).sum())
    return torch.stack(totals)


@torch.no_grad()
def objective(model, reference, tokenizer, beta: float) -> tuple[float, float, float]:
    """J = expected reward - beta KL of the model, of the reference and of the optimum, summed over all responses."""
    responses = all_responses()
    sums = [0.0, 0.0, 0.0]
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
        rewards = torch.tensor([score(prompt, text) for text in texts], dtype=torch.float64)
        rewards -= PENALTY * torch.tensor([response[-1] != WORDS for response in responses])
        p, q = response_logprobs(model, ids, responses), response_logprobs(reference, ids, responses)
        assert q.exp().sum().item() == pytest.approx(1.0)
        sums[0] += float((p.exp() * (rewards - beta * (p - q))).sum())
        sums[1] += float((q.exp() * rewards).sum())
        # The optimum is q exp(rewards / beta) / Z, and its J is beta log Z.
        sums[2] += float(beta * torch.logsumexp(q + rewards / beta, 0))
    return tuple(sums)


@pytest.mark.parametrize("beta, critic", [(0.2, "shared"), (0.5, "separate"), (1.0, "shared")])
def test_comes_within_5_percent_of_the_optimum_under_a_kl_penalty(beta, critic):
    tokenizer = make_tokenizer(WORDS + 1)
    sizes = dict(vocab_size=WORDS + 1, bos_token_id=WORDS, eos_token_id=WORDS)
    policy, reference = make_policy(**sizes), make_policy(**sizes)
    config = PPOConfig(
        episodes=150 * 64, batch_size=64, ppo_epochs=2, minibatches=2, micro_batch_size=64, learning_rate=2e-3,
        kl_coef=beta, temperature=TEMPERATURE, max_new_tokens=LIMIT, missing_eos_penalty=PENALTY, critic=critic,
        critic_learning_rate=5e-3, value_coef=0.5, gae_lambda=1.0,
    )  # fmt: skip

    def reward(prompts, responses):
        return [score(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]

    PPOTrainer(config, policy, tokenizer, reward, PROMPTS, device="cpu").train()
    reached, start, best = objective(policy, reference, tokenizer, beta)
    assert best > start + 0.1
    share = (reached - start) / (best - start)
    print(f"beta {beta}: J {start:.4f} -> {reached:.4f} of {best:.4f}: {share:.4f}")
    assert 0.95 <= share <= 1.0 + 1e-6
