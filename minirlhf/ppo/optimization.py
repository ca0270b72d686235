"""The optimizer, its learning rates, and the update of all networks on one trajectory."""

import math

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.ppo.config import PPOConfig
from minirlhf.ppo.losses import policy_losses, update_statistics, value_losses
from minirlhf.ppo.model import Models, Sequences, micro_batches
from minirlhf.ppo.processes import Processes
from minirlhf.ppo.prompts import random_order
from minirlhf.ppo.trajectory import Targets, Trajectory

# What is summed over the tokens of a minibatch, in this order.
SUMS = ("policy_loss", "value_loss", "ratio", "approx_kl", "clip_fraction", "value_clip_fraction")


class TrainingError(UserError):
    """Training met a number that is not finite."""


def make_optimizer(models: Models, config: PPOConfig) -> torch.optim.Optimizer:
    """Adam over two groups, the policy and the critic (the value head alone where the trunk is shared)."""
    named = list(models.named_trainable())
    groups = []
    for prefix, rate in (("policy.", config.learning_rate), ("critic.", config.critic_learning_rate)):
        parameters = [parameter for name, parameter in named if name.startswith(prefix)]
        rate = rate or config.learning_rate
        groups.append({"params": parameters, "lr": rate, "peak": rate})
    # fused: one pass over the weights, no temporary copies of them
    return torch.optim.Adam(groups, eps=config.adam_epsilon, fused=True)


def learning_rate_factor(config: PPOConfig, step: int) -> float:
    """The share of the peak learning rate at optimizer step `step` (from 0): warm-up, then the schedule.

    A function of the step alone, so there is no scheduler to call at the wrong time, nor to save.
    """
    warmup = round(config.warmup * config.optimizer_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (config.optimizer_steps - warmup)
    if config.lr_schedule == "linear":
        return 1 - progress
    if config.lr_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def learn(
    models: Models,
    optimizer: torch.optim.Optimizer,
    trajectory: Trajectory,
    targets: Targets,
    config: PPOConfig,
    processes: Processes,
    seed: int,
    update: int,
) -> dict[str, float]:
    """Take ppo_epochs x minibatches optimizer steps on a trajectory; returns statistics over real tokens.

    Ends early, before the step, once the policy has moved further than `target_kl` from the one that sampled.
    Raises TrainingError if a loss or gradient is not finite; no step is taken then.
    """
    sums, tokens, steps, ratio_error = torch.zeros(len(SUMS)), 0, 0, None
    norms = [0.0, 0.0]
    for epoch, minibatch, chosen in _minibatches(config, seed, update):
        optimizer.zero_grad(set_to_none=True)
        added, count, error = minibatch_gradient(models, trajectory, targets, chosen, config, processes)
        sums, tokens = sums + added, tokens + count
        ratio_error = error if ratio_error is None else ratio_error
        where = f"update {update + 1}, epoch {epoch + 1}, minibatch {minibatch + 1}"
        if not torch.isfinite(added).all():
            seen = ", ".join(f"{name} {value:.4g}" for name, value in zip(SUMS, (added / count).tolist(), strict=True))
            raise TrainingError(f"ppo: {where}: the loss is not a finite number ({seen}); try a lower learning_rate")
        if config.target_kl is not None and added[SUMS.index("approx_kl")] / count > config.target_kl:
            break
        step = (update * config.ppo_epochs + epoch) * config.minibatches + minibatch
        factor = learning_rate_factor(config, step)
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = group["peak"] * factor
            norm = float(torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm))
            if not math.isfinite(norm):
                raise TrainingError(f"ppo: {where}: the gradient is not finite; try a lower learning_rate")
            norms[index] += norm
        optimizer.step()
        steps += 1
    optimizer.zero_grad(set_to_none=True)  # gradients are as large as the models: none while sampling
    statistics = dict(zip(SUMS, (sums / tokens).tolist(), strict=True))
    return statistics | {
        "ratio_error": ratio_error,
        "policy_grad_norm": norms[0] / max(steps, 1),
        "critic_grad_norm": norms[1] / max(steps, 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "steps": steps,
    }


def minibatch_gradient(
    models: Models,
    trajectory: Trajectory,
    targets: Targets,
    chosen: list[int],
    config: PPOConfig,
    processes: Processes,
) -> tuple[Tensor, int, float]:
    """Add the gradient of the loss of the chosen episodes to the parameters, micro-batch by micro-batch.

    The loss is the sum over tokens of policy loss + value_coef x value loss, divided by the tokens of the whole
    minibatch over all processes: how it is split changes nothing but rounding.

    Returns:
        Sums over tokens of SUMS, the number of tokens, and the largest |ratio - 1|, all over all processes.
    """
    mask = trajectory.response_mask
    lengths = [len(trajectory.prompt_ids[i]) + len(trajectory.response_ids[i]) for i in chosen]
    ordered = [chosen[i] for group in micro_batches(lengths, len(chosen)) for i in group]
    mine = processes.share(ordered)
    tokens = int(mask[chosen].sum())
    sums, error = torch.zeros(len(SUMS), device=processes.device), torch.zeros((), device=processes.device)
    for first in range(0, len(mine), config.micro_batch_size):
        rows = mine[first : first + config.micro_batch_size]
        batch = Sequences.pack(
            [trajectory.prompt_ids[i] for i in rows], [trajectory.response_ids[i] for i in rows], processes.device
        )
        kept = mask[rows]
        old_logprobs, old_values = trajectory.logprobs[rows][kept], trajectory.values[rows][kept]
        advantages, returns = targets.advantages[rows][kept], targets.returns[rows][kept]
        if models.critic_trunk is None:
            logprobs, values = models.forward(batch, config.temperature)
        else:
            logprobs = models.logprobs(batch, config.temperature)
        policy_loss = policy_losses(logprobs, old_logprobs, advantages, config.clip_range).sum()
        if models.critic_trunk is not None:
            # One network after the other, so that the activations of one at a time take memory.
            (policy_loss / tokens).backward()
            policy_loss, values = policy_loss.detach(), models.values(batch)
        value_loss = value_losses(values, old_values, returns, config.value_clip_range).sum()
        ((policy_loss + config.value_coef * value_loss) / tokens).backward()
        seen = update_statistics(
            logprobs.detach(),
            old_logprobs,
            advantages,
            values.detach(),
            old_values,
            returns,
            config.clip_range,
            config.value_clip_range,
        )
        seen |= {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()}
        sums = sums + torch.stack([seen[name].to(sums.dtype) for name in SUMS])
        error = torch.maximum(error, ((logprobs.detach() - old_logprobs).exp() - 1).abs().max().to(error.dtype))
    processes.sum_gradients(parameter for _, parameter in models.named_trainable())
    return processes.sum(sums).cpu(), tokens, max(processes.gather([float(error)]))


def _minibatches(config: PPOConfig, seed: int, update: int):
    """(epoch, minibatch, episodes): each epoch a new random split of the batch into equal minibatches."""
    for epoch in range(config.ppo_epochs):
        order = random_order(config.batch_size, seed, "minibatches", update, epoch)
        for minibatch in range(config.minibatches):
            first = minibatch * config.minibatch_size
            yield epoch, minibatch, order[first : first + config.minibatch_size]
