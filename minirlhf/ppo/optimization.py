"""The optimizer, its learning rates, and the update of all networks on one trajectory."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minirlhf.models.finite import first_bad
from minirlhf.models.logprobs import Sequences
from minirlhf.models.passes import alike_together
from minirlhf.ppo.losses import policy_losses, policy_statistics, value_losses, value_statistics
from minirlhf.ppo.model import Models, recomputing
from minirlhf.ppo.prompts import random_order
from minirlhf.ppo.trajectory import Targets, Trajectory
from minirlhf.runtime.errors import TrainingError
from minirlhf.runtime.memory import explained
from minirlhf.runtime.processes import Processes
from minirlhf.settings.ppo import PPOConfig

NETWORKS = ("policy", "critic")
# What is summed over the tokens of a minibatch, in this order.
SUMS = ("policy_loss", "value_loss", "ratio", "approx_kl", "clip_fraction", "value_clip_fraction")


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
    Raises TrainingError if a loss or gradient is not finite, before the step; or the weights after the last one.
    """
    sums, tokens, steps, ratio_error = torch.zeros(len(SUMS)), 0, 0, None
    norms = dict.fromkeys(NETWORKS, 0.0)
    # A separate critic takes its step after the policy's, so that the gradients of one network at a time take memory.
    turns = [NETWORKS] if models.critic_trunk is None else [(network,) for network in NETWORKS]
    for epoch, minibatch, chosen in _minibatches(config, seed, update):
        where = f"epoch {epoch + 1}, minibatch {minibatch + 1}"
        factor = learning_rate_factor(config, (update * config.ppo_epochs + epoch) * config.minibatches + minibatch)
        added, stop = torch.zeros(len(SUMS)), False
        for networks in turns:
            seen, count, error = minibatch_gradient(models, trajectory, targets, chosen, config, processes, networks)
            added = added + seen
            ratio_error = error if ratio_error is None else ratio_error
            _check_finite(added / count, where)
            stop = config.target_kl is not None and float(added[SUMS.index("approx_kl")]) / count > config.target_kl
            if stop:
                break
            for network in networks:
                norms[network] += _clip(optimizer, network, factor, config.max_grad_norm, where)
            with explained(f"{where}: no memory for the optimizer's state; try lora or a smaller model"):
                optimizer.step()
        sums, tokens = sums + added, tokens + count
        if stop:
            break
        steps += 1
    broken = first_bad(models.named_trainable())
    if broken is not None:
        raise TrainingError(f"the weights {broken} are no longer finite; try a lower learning_rate")
    optimizer.zero_grad(set_to_none=True)  # gradients are as large as the models: none while sampling
    statistics = dict(zip(SUMS, (sums / tokens).tolist(), strict=True))
    return statistics | {
        "ratio_error": ratio_error,
        "policy_grad_norm": norms["policy"] / max(steps, 1),
        "critic_grad_norm": norms["critic"] / max(steps, 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "steps": steps,
    }


def _check_finite(means: Tensor, where: str) -> None:
    if not torch.isfinite(means).all():
        seen = ", ".join(f"{name} {value:.4g}" for name, value in zip(SUMS, means.tolist(), strict=True))
        advice = "try a lower learning_rate, or smaller rewards"
        raise TrainingError(f"{where}: the loss is not a finite number ({seen}); {advice}")


def _clip(optimizer: torch.optim.Optimizer, network: str, factor: float, max_norm: float, where: str) -> float:
    """Set a network's learning rate and scale its gradient down to `max_norm`; returns the norm before."""
    group = optimizer.param_groups[NETWORKS.index(network)]
    group["lr"] = group["peak"] * factor
    norm = float(torch.nn.utils.clip_grad_norm_(group["params"], max_norm))
    if not math.isfinite(norm):
        raise TrainingError(f"{where}: the gradient of the {network} is not finite; try a lower learning_rate")
    return norm


def minibatch_gradient(
    models: Models,
    trajectory: Trajectory,
    targets: Targets,
    chosen: Sequence[int],
    config: PPOConfig,
    processes: Processes,
    networks: Sequence[str] = NETWORKS,
) -> tuple[Tensor, int, float]:
    """Set the parameters' gradients to those of the loss of the chosen episodes, micro-batch by micro-batch.

    The loss is the sum over tokens of policy loss + value_coef x value loss, divided by the tokens of the whole
    minibatch over all processes: how it is split changes nothing but rounding. Where memory runs out, this process
    begins its share anew in smaller micro-batches, before it meets the others.

    Args:
        networks: whose loss; with a separate critic, one may be left out.

    Returns:
        Sums over tokens of SUMS, the number of tokens, and the largest |ratio - 1|, all over all processes.
    """
    lengths = [len(trajectory.prompt_ids[i]) + len(trajectory.response_ids[i]) for i in chosen]
    prompts = [tuple(trajectory.prompt_ids[i]) for i in chosen]
    mine = processes.share([chosen[i] for i in alike_together(prompts, lengths)])
    tokens = int(trajectory.response_mask[chosen].sum())

    def own_share(micro_batch_size: int) -> tuple[Tensor, Tensor]:
        for _, parameter in models.named_trainable():
            parameter.grad = None  # also what an attempt that ran out of memory left
        with recomputing(models.checkpointed):
            return _add_gradient(models, trajectory, targets, mine, tokens, config, networks, micro_batch_size)

    sums, error = models.micro_batch.retry(own_share)
    prefixes = tuple(f"{network}." for network in networks)
    processes.sum_gradients(p for name, p in models.named_trainable() if name.startswith(prefixes))
    return processes.sum(sums).cpu(), tokens, max(processes.gather([float(error)]))


def _add_gradient(
    models: Models,
    trajectory: Trajectory,
    targets: Targets,
    mine: list[int],
    tokens: int,
    config: PPOConfig,
    networks: Sequence[str],
    micro_batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of `mine`, this process's episodes of a minibatch of `tokens` tokens, to the parameters.

    Returns the sums and the largest error of `minibatch_gradient`, of these episodes alone.
    """
    mask, device = trajectory.response_mask, models.policy.device
    sums, error = torch.zeros(len(SUMS), device=device), torch.zeros((), device=device)
    for first in range(0, len(mine), micro_batch_size):
        rows = mine[first : first + micro_batch_size]
        prompts, responses = [trajectory.prompt_ids[i] for i in rows], [trajectory.response_ids[i] for i in rows]
        batch = Sequences.pack(prompts, responses, device, models.shares)
        kept = mask[rows]

        def tokens_of(padded: Tensor, rows: list[int] = rows, kept: Tensor = kept) -> Tensor:
            return padded[rows][kept]

        both = models.forward(batch, config.temperature) if models.critic_trunk is None else None
        loss, seen = 0.0, {}
        if "policy" in networks:
            logprobs = models.logprobs(batch, config.temperature) if both is None else both[0]
            data = tokens_of(trajectory.logprobs), tokens_of(targets.advantages), config.clip_range
            policy_loss = policy_losses(logprobs, *data).sum()
            seen |= policy_statistics(logprobs, *data) | {"policy_loss": policy_loss.detach()}
            loss = policy_loss / tokens
            error = torch.maximum(error, ((logprobs.detach() - data[0]).exp() - 1).abs().max().to(error.dtype))
            if both is None:  # the activations of one network at a time
                loss.backward()
                loss = 0.0
        if "critic" in networks:
            values = models.values(batch) if both is None else both[1]
            data = tokens_of(trajectory.values), tokens_of(targets.returns), config.value_clip_range
            value_loss = value_losses(values, *data).sum()
            seen |= value_statistics(values, *data) | {"value_loss": value_loss.detach()}
            (loss + config.value_coef * value_loss / tokens).backward()
        sums = sums + torch.stack(
            [torch.as_tensor(seen.get(name, 0.0), dtype=sums.dtype, device=sums.device) for name in SUMS]
        )
    return sums, error


def _minibatches(config: PPOConfig, seed: int, update: int):
    """(epoch, minibatch, episodes): each epoch a new random split of the batch into equal minibatches.

    Samples of one prompt stay together.
    """
    samples = config.samples_per_prompt
    for epoch in range(config.ppo_epochs):
        prompts = random_order(config.batch_size // samples, seed, "minibatches", update, epoch)
        order = [prompt * samples + sample for prompt in prompts for sample in range(samples)]
        for minibatch in range(config.minibatches):
            first = minibatch * config.minibatch_size
            yield epoch, minibatch, order[first : first + config.minibatch_size]
