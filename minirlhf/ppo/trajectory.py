"""The record in which a rollout travels: what was sampled, and what was found out about it.

Shapes: B episodes of an update (all processes' together), R longest response. All tensors are padded on the right
with 0; `response_mask`, made from lengths, is True on real tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """B episodes. Being small, all of them are held by every process; passes through models are what is split."""

    prompts: list[str]  # B texts
    responses: list[str]  # B texts, without special tokens
    prompt_ids: list[list[int]]  # B lists
    response_ids: list[list[int]]  # B lists, EOS included where generated
    ended: Tensor  # [B] bool: EOS was generated (False: cut at the limit)
    logprobs: Tensor  # [B, R] of the policy that sampled, at the sampling temperature
    reference_logprobs: Tensor  # [B, R] of the reference, at the same temperature
    values: Tensor  # [B, R] the critic's value of the state before each token
    scores: Tensor  # [B, R] what the reward function gave, on the token it gave it for

    @property
    def response_length(self) -> Tensor:
        """[B] tokens of each response, EOS included; at least 1."""
        return torch.tensor([len(ids) for ids in self.response_ids], device=self.logprobs.device)

    @property
    def response_mask(self) -> Tensor:
        """[B, R] True on real tokens."""
        return mask_of(self.response_length, self.logprobs.shape[1])


@dataclass(frozen=True)
class Targets:
    """What the update learns from, computed from a trajectory by `minirlhf.ppo.advantages.compute_targets`."""

    kl: Tensor  # [B, R] penalised KL estimate of each token
    rewards: Tensor  # [B, R] scores, missing-EOS penalty and KL penalty
    advantages: Tensor  # [B, R] whitened over the global batch if so set
    returns: Tensor  # [B, R] targets of the values
    monte_carlo: Tensor  # [B, R] what each state came to: the discounted sum of the rewards from there on


def mask_of(lengths: Tensor, width: int) -> Tensor:
    """[B, width] True on the first `lengths` [B] slots of each row.

    >>> mask_of(torch.tensor([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def pad_right(rows: list[Tensor], width: int | None = None) -> Tensor:
    """[B, width] from B one-dimensional tensors, padded on the right with 0.

    >>> pad_right([torch.tensor([1, 2]), torch.tensor([3])]).tolist()
    [[1, 2], [3, 0]]
    """
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if width is not None and width > padded.shape[1]:
        padded = torch.nn.functional.pad(padded, (0, width - padded.shape[1]))
    return padded
