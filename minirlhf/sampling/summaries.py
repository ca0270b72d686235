"""The systems that are compared, and their summaries: sampled, scored under a model, judged.

A system is a policy together with its way of decoding, or the authors of the posts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from minirlhf.models.logprobs import response_logprobs
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.runtime.memory import BatchSize
from minirlhf.sampling.draw import episode_seeds
from minirlhf.sampling.generate import generate
from minirlhf.text.prompts import decode_response, encode_all, encode_prompts

# Evaluation draws from random streams of its own, far from those that training used (its episodes count from 0).
FIRST_EPISODE = 1 << 40
FIRST_BEST_OF_N_EPISODE = 1 << 41


@dataclass(frozen=True)
class Summaries:
    """One system's summaries of B posts."""

    texts: list[str]  # decoded, without the EOS at its end, leading space as generated
    ended: np.ndarray  # [B] bool: ended by itself
    token_ids: list[list[int]]  # EOS included where the summary ended
    logprobs: np.ndarray | None = None  # [B] sum over tokens, nats, under the sampling distribution

    @property
    def lengths(self) -> np.ndarray:
        """[B] tokens, EOS included."""
        return np.array([len(ids) for ids in self.token_ids], dtype=float)

    def first(self, count: int) -> "Summaries":
        """Those of the first `count` posts."""
        logprobs = None if self.logprobs is None else self.logprobs[:count]
        return Summaries(self.texts[:count], self.ended[:count], self.token_ids[:count], logprobs)


def written(tokenizer, summaries: Sequence[str]) -> Summaries:
    """Summaries that people wrote, as if they had been generated: each ended."""
    token_ids = [ids + [tokenizer.eos_token_id] for ids in encode_all(tokenizer, summaries)]
    return Summaries(list(summaries), np.ones(len(summaries), bool), token_ids)


def sample(
    policy: nn.Module | TrunkAndHead,
    tokenizer,
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    first_episode: int = FIRST_EPISODE,
    samples_per_prompt: int = 1,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Summaries:
    """A policy's summaries of B prompts, `samples_per_prompt` for each in turn; temperature 0 is greedy.

    Two policies asked with the same seed see the same random numbers on the same post, so that what differs
    between their summaries is the policies' doing and not chance.
    """
    count = len(prompts) * samples_per_prompt
    generated = generate(
        policy,
        encode_prompts(tokenizer, prompts),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seeds=episode_seeds(seed, first_episode, count) if temperature else None,
        samples_per_prompt=samples_per_prompt,
        batch_size=batch_size,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        progress=progress,
    )
    token_ids = generated.token_ids()
    return Summaries(
        texts=[decode_response(tokenizer, ids) for ids in token_ids],
        ended=generated.ended.cpu().numpy(),
        token_ids=token_ids,
        logprobs=generated.logprobs.double().sum(1).cpu().numpy(),
    )


def log_probabilities(
    policy: nn.Module | TrunkAndHead,
    prompt_ids: Sequence[list[int]],
    response_ids: Sequence[list[int]],
    temperature: float,
    batch_size: int = 64,
) -> np.ndarray:
    """[B] log-probability in nats of each response after its prompt, under softmax(logits / temperature)."""
    parts = policy if isinstance(policy, TrunkAndHead) else TrunkAndHead(policy)
    size = BatchSize(batch_size, "evaluate: batch_size", "shorter prompts or precision bf16")
    each = response_logprobs(parts, prompt_ids, response_ids, temperature, size)
    return np.array([float(row.sum()) for row in each])
