"""The two clipped losses of PPO (Schulman 2017, arXiv 1707.06347), a token at a time.

Pure functions on N real tokens: no padding gets here, so no statistic can see any. Callers sum the losses of a
micro-batch and divide by the tokens of the whole minibatch, whatever the split.
"""

import torch
from torch import Tensor


def policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """max(-A ratio, -A clip(ratio, 1 +- clip_range)), [N] (eq. 7), with ratio = exp(logprobs - old_logprobs)."""
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped)


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """0.5 max((V - R)^2, (clip(V, V_old +- clip_range) - R)^2), [N], as in SFD and TRL."""
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


@torch.no_grad()
def policy_statistics(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float
) -> dict[str, Tensor]:
    """Sums over N tokens of what is logged beside the policy's loss.

    `approx_kl` is the k3 estimate of KL(old policy || new policy); `clip_fraction` counts tokens whose loss is the
    clipped one, where the gradient is 0.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    clipped_loss = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return {
        "ratio": ratio.sum(),
        "approx_kl": (torch.expm1(log_ratio) - log_ratio).sum(),
        "clip_fraction": (clipped_loss > -advantages * ratio).sum(),
    }


@torch.no_grad()
def value_statistics(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> dict[str, Tensor]:
    """Sums over N tokens: how many values have the clipped loss, where the gradient is 0."""
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return {"value_clip_fraction": ((clipped - returns) ** 2 > (values - returns) ** 2).sum()}
