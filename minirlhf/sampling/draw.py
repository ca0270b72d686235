"""Random draws: seeds of episodes, the uniform numbers of each, and tokens by them.

Shapes: B responses, V vocabulary.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def episode_seeds(seed: int | str, start: int, count: int) -> list[int]:
    """Seeds of the episodes `start .. start + count - 1` of a run: a hash of (seed, episode), 64 bits each."""

    def one(episode: int) -> int:
        return int.from_bytes(hashlib.blake2b(f"{seed}:{episode}".encode(), digest_size=8).digest(), "little")

    return [one(episode) for episode in range(start, start + count)]


def uniform_numbers(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Uniform numbers [B, count] in [0, 1), a row from each seed: drawn on the CPU whatever the device."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(count, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(device)


def sample_tokens(logits: Tensor, temperature: float, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] from logits [B, V] and uniform numbers [B] in [0, 1).

    The token is the first whose cumulative probability exceeds the uniform number (inverse transform sampling).
    """
    if temperature == 0:
        logprobs = torch.log_softmax(logits, dim=-1)
        tokens = logits.argmax(dim=-1)
    else:
        logprobs = torch.log_softmax(logits / temperature, dim=-1)
        # In whole numbers, whose sums are exact in any order: those of floats are not deterministic on a GPU.
        cumulative = (logprobs.exp() * 2.0**40).long().cumsum(dim=-1)
        total = cumulative[:, -1]
        threshold = torch.minimum((uniforms.double() * total).long(), total - 1)
        tokens = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)  # only NaN gets there; `generate` refuses it at the end
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]
