"""Sample episodes and find out about them what the update needs: a `Trajectory`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minirlhf.models.logprobs import Sequences
from minirlhf.models.passes import alike_together
from minirlhf.ppo.model import Models
from minirlhf.ppo.trajectory import Trajectory, pad_right
from minirlhf.rewards.text import RewardFunction, call_reward, show
from minirlhf.runtime.errors import TrainingError
from minirlhf.runtime.processes import Processes
from minirlhf.sampling.generate import generate
from minirlhf.settings.ppo import PPOConfig
from minirlhf.text.prompts import decode_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Episode:
    """One episode on its way between processes, on the CPU; tensors are as long as the response."""

    prompt: str
    response: str
    prompt_ids: list[int]
    response_ids: list[int]
    ended: bool
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    scores: Tensor


def collect(
    models: Models,
    tokenizer: "PreTrainedTokenizerBase",
    reward: RewardFunction,
    prompts: list[tuple[str, list[int]]],
    seeds: list[int],
    config: PPOConfig,
    processes: Processes,
) -> Trajectory:
    """Sample a response to each of B prompts (text, ids) with each its seed; every process returns all B episodes.

    Raises RewardError if the reward function fails (see `minirlhf.rewards.text`), and TrainingError, showing the
    response, if a model gave it a number that is not finite.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index][1]))
    mine = processes.share(order)
    episodes = (
        _sample(models, tokenizer, reward, [prompts[i] for i in mine], [seeds[i] for i in mine], config) if mine else []
    )
    episodes = processes.gather(episodes)
    position = {index: place for place, index in enumerate(order)}
    trajectory = _assemble([episodes[position[index]] for index in range(len(prompts))], processes.device)
    _check_finite(trajectory)
    return trajectory


# What a number that is not finite is called, and what to do about it.
_BAD = {
    "logprobs": ("log-probability by the policy", "try a lower learning_rate"),
    "reference_logprobs": ("log-probability by the reference", "its weights are damaged"),
    "values": ("value by the critic", "try a lower critic_learning_rate"),
}


def _check_finite(trajectory: Trajectory) -> None:
    for name, (what, advice) in _BAD.items():
        bad = ~torch.isfinite(getattr(trajectory, name)).all(1)
        if bad.any():
            shown = show(trajectory.prompts, trajectory.responses, int(bad.nonzero()[0]))
            raise TrainingError(f"the {what} is not a finite number for {shown}; {advice}")


def _sample(
    models: Models,
    tokenizer: "PreTrainedTokenizerBase",
    reward: RewardFunction,
    prompts: list[tuple[str, list[int]]],
    seeds: list[int],
    config: PPOConfig,
) -> list[_Episode]:
    with models.autocast():
        generation = generate(
            models.policy,
            [ids for _, ids in prompts],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,  # never read: ends are known by lengths
            seeds=seeds,
            batch_size=models.rollout_batch,
            value_head=models.value_head if models.critic_trunk is None else None,
        )
    assert generation.logprobs is not None  # it was asked for them
    prompt_texts, prompt_ids = [text for text, _ in prompts], [ids for _, ids in prompts]
    response_ids, ended = generation.token_ids(), generation.ended.tolist()
    responses = [decode_response(tokenizer, ids) for ids in response_ids]
    lengths = [len(ids) for ids in response_ids]
    reference_logprobs, values = _second_opinions(models, prompt_ids, response_ids, config)
    if generation.values is not None:
        values = _unpad(generation.values, lengths)
    scores = call_reward(reward, prompt_texts, responses, ended, response_ids)
    rows = zip(
        prompt_texts,
        responses,
        prompt_ids,
        response_ids,
        ended,
        _unpad(generation.logprobs, lengths),
        reference_logprobs,
        values,
        [_score_row(score, length) for score, length in zip(scores, lengths, strict=True)],
        strict=True,
    )
    return [_Episode(*row) for row in rows]


@torch.no_grad()
def _second_opinions(
    models: Models, prompt_ids: list[list[int]], response_ids: list[list[int]], config: PPOConfig
) -> tuple[list[Tensor], list[Tensor]]:
    """The reference's log-probabilities and the separate critic's values, an episode at a time."""
    reference_logprobs: list[Tensor] = [torch.empty(0)] * len(prompt_ids)
    values = list(reference_logprobs)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompt_ids, response_ids, strict=True)]

    def ask(group: Sequence[int]) -> None:
        chosen = [response_ids[i] for i in group]
        batch = Sequences.pack([prompt_ids[i] for i in group], chosen, models.policy.device, models.shares)
        sizes = [len(response) for response in chosen]
        logprobs = models.reference_logprobs(batch, config.temperature).cpu().split(sizes)
        opinions = models.values(batch).cpu().split(sizes) if models.critic_trunk is not None else logprobs
        for index, row, value in zip(group, logprobs, opinions, strict=True):
            reference_logprobs[index], values[index] = row, value

    models.micro_batch.each(alike_together([tuple(ids) for ids in prompt_ids], lengths), ask)
    return reference_logprobs, values


def _score_row(score: float | list[float], length: int) -> Tensor:
    """Scores of one response [R]: as given a token, or the one number on the last generated token."""
    row = torch.zeros(length)
    if isinstance(score, list):
        return torch.tensor(score, dtype=row.dtype)
    row[-1] = score
    return row


def _unpad(padded: Tensor, lengths: list[int]) -> list[Tensor]:
    return [row[:length] for row, length in zip(padded.cpu(), lengths, strict=True)]


def _assemble(episodes: list[_Episode], device: torch.device) -> Trajectory:
    def padded(name: str) -> Tensor:
        return pad_right([getattr(episode, name) for episode in episodes]).to(device)

    return Trajectory(
        prompts=[episode.prompt for episode in episodes],
        responses=[episode.response for episode in episodes],
        prompt_ids=[episode.prompt_ids for episode in episodes],
        response_ids=[episode.response_ids for episode in episodes],
        ended=torch.tensor([episode.ended for episode in episodes], device=device),
        logprobs=padded("logprobs"),
        reference_logprobs=padded("reference_logprobs"),
        values=padded("values"),
        scores=padded("scores"),
    )
