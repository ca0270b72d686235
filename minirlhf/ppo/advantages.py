"""From a trajectory to what the update learns from: KL penalty, rewards a token, advantages, whitening.

Pure functions on tensors. Shapes: B episodes, R longest response, N real tokens.
"""

from typing import Literal

import torch
from torch import Tensor

from minirlhf.ppo.trajectory import Targets, Trajectory
from minirlhf.settings.ppo import PPOConfig


def kl_per_token(logprobs: Tensor, reference_logprobs: Tensor, estimator: Literal["k1", "k3"]) -> Tensor:
    """Estimates of KL(policy || reference) at sampled tokens, any shape (Schulman 2020, "Approximating KL divergence").

    With log ratio l = log policy - log reference: k1 = l; k3 = exp(-l) - 1 + l, which is never negative. Both have
    the KL as their mean.
    """
    log_ratio = logprobs - reference_logprobs
    if estimator == "k1":
        return log_ratio
    return torch.expm1(-log_ratio) + log_ratio


def token_rewards(
    scores: Tensor,  # [B, R] from the reward function
    kl: Tensor,  # [B, R]
    ended: Tensor,  # [B] bool
    response_mask: Tensor,  # [B, R] bool
    kl_coef: float,
    missing_eos_penalty: float,
) -> Tensor:
    """Rewards [B, R]: scores - kl_coef x KL, and the penalty subtracted on the last token of responses without EOS.

    A response cut at the length limit counts as finished there (its last state is terminal and worth 0): the penalty,
    not a bootstrapped value, says what being cut is worth.
    """
    rewards = scores - kl_coef * kl
    last = response_mask.sum(1) - 1
    penalty = torch.where(ended, 0.0, missing_eos_penalty).to(rewards.dtype)
    rewards = rewards.scatter_add(1, last[:, None], -penalty[:, None])
    return rewards.masked_fill(~response_mask, 0)


def leave_one_out(rewards: Tensor, response_mask: Tensor, samples_per_prompt: int) -> Tensor:
    """Rewards [B, R], on the last token of each episode less what the others with its prompt come to, on average.

    The baseline of RLOO (Ahmadian et al. 2024, arXiv 2402.14740) before the critic's: a reward model that
    learnt from comparisons fixes no level for a prompt, and that level is then nothing that the critic has to learn.
    Being independent of the episode's own tokens, it leaves the policy gradient unbiased.

    Args:
        samples_per_prompt: k > 1 episodes in a row with one prompt.
    """
    totals = rewards.masked_fill(~response_mask, 0).sum(1).view(-1, samples_per_prompt)
    others = (totals.sum(1, keepdim=True) - totals) / (samples_per_prompt - 1)
    last = response_mask.sum(1) - 1
    return rewards.scatter_add(1, last[:, None], -others.view(-1, 1))


def generalized_advantages(
    rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, [B, R] each (Schulman 2015, arXiv 1506.02438, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lambda A_{t+1}; beyond the last real token V and A
    are 0, so a score on the last token is not discounted by lambda once more. Returns are advantages + values.
    """
    rewards, values = rewards.masked_fill(~response_mask, 0), values.masked_fill(~response_mask, 0)
    columns, advantage, next_value = [], torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for step in reversed(range(rewards.shape[1])):
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        advantage = delta + gamma * gae_lambda * advantage
        next_value = values[:, step]
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, (advantages + values).masked_fill(~response_mask, 0)


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """`values` scaled to (unbiased) variance 1 over the True positions of `mask`; 0 elsewhere.

    Args:
        shift_mean: also move the mean to 0. False keeps the mean of the unscaled values, as SFD does for rewards.
    """
    kept = values[mask]
    mean = kept.mean()
    variance = kept.var() if kept.numel() > 1 else torch.ones_like(mean)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0)


def compute_targets(trajectory: Trajectory, config: PPOConfig, kl_coef: float) -> Targets:
    """Everything that the update learns from, over the global batch."""
    mask = trajectory.response_mask
    kl = kl_per_token(trajectory.logprobs, trajectory.reference_logprobs, config.kl_estimator).masked_fill(~mask, 0)
    rewards = token_rewards(trajectory.scores, kl, trajectory.ended, mask, kl_coef, config.missing_eos_penalty)
    learnt = whiten(rewards, mask, shift_mean=False) if config.whiten_rewards else rewards
    if config.leave_one_out:
        learnt = leave_one_out(learnt, mask, config.samples_per_prompt)
    advantages, returns = generalized_advantages(learnt, trajectory.values, mask, config.gamma, config.gae_lambda)
    _, monte_carlo = generalized_advantages(learnt, trajectory.values, mask, config.gamma, gae_lambda=1.0)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Targets(kl=kl, rewards=rewards, advantages=advantages, returns=returns, monte_carlo=monte_carlo)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over N real tokens: 1 is a perfect critic, 0 one that knows nothing."""
    variance = returns.var(unbiased=False)
    return float(1 - (returns - values).var(unbiased=False) / variance) if variance > 0 else 0.0


def adapted_kl_coef(kl_coef: float, kl: float, config: PPOConfig) -> float:
    """The KL coefficient after an update that saw `kl` nats a response (Ziegler 2019, arXiv 1909.08593, section 2.2).

    A proportional controller on the log scale, its error clipped to +-20%: kl_coef (1 + error batch / horizon).
    """
    if config.adaptive_kl_target is None:
        return kl_coef
    error = min(max(kl / config.adaptive_kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * config.batch_size / config.adaptive_kl_horizon)
