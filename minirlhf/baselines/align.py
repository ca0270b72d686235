"""Align the SFT model by RLOO, GRPO or DPO, and say what happened in the columns in which PPO says it."""

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from minirlhf.baselines import dpo, online
from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.adapters import add_adapters
from minirlhf.models.loading import load_policy
from minirlhf.models.trunk import TrunkAndHead, check_fits
from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.launch import world_size
from minirlhf.runtime.progress import Progress
from minirlhf.sampling.summaries import log_probabilities, sample
from minirlhf.text.prompts import encode_prompts
from minirlhf.training.loop import RESUME, WRITING, OnRow, RunCallback, history, run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from minirlhf.settings.params import Params

Row = dict[str, Any]
SAMPLES = 4  # responses kept of each evaluation, as PPO keeps
# What PPO's history has and these may not: they have no critic, and DPO samples no responses.
EMPTY = dict.fromkeys(
    (
        *("reward", "kl", "length", "ended", "entropy", "policy_loss", "value_loss"),
        *("clip_fraction", "explained_variance", "policy_grad_norm"),
    )
)


@dataclass(frozen=True)
class Aligned:
    """A policy, its history (a row an update; the columns of details/ppo.csv) and samples from before and after."""

    policy: nn.Module
    tokenizer: "PreTrainedTokenizerBase"
    history: list[Row]
    samples: list[Row]


def align(
    sft: str | Path,
    reward: RewardFunction,
    prompts: dict[str, list[str]],
    comparisons: list[Row],
    params: "Params",
    device: str,
    folder: str | Path | None = None,
    on_row: OnRow | None = None,
) -> Aligned:
    """Train a copy of the SFT model by `params.algorithm`; the SFT model itself is the reference.

    Args:
        sft: folder of the SFT model.
        prompts: by split: "train", and "validation", on which the policy is evaluated before and after.
        comparisons: of the train split; DPO learns from them and from nothing else.
        folder: for resume points, from which it goes on; None: none are kept.
        on_row: called with the history so far after each update.

    Raises:
        TrainingError: a loss, a gradient or the weights are no longer finite.
        UserError: too few prompts or comparisons for one batch, several processes, prompts too long for the model, a
            reward function that fails, or a damaged resume point.
    """
    if world_size() > 1:
        raise UserError(f"algorithm: {params.algorithm} trains in one process here; only ppo in several")
    section, tokenizer = params.aligner, load_tokenizer(sft)
    policy, reference = load_policy(sft), load_policy(sft).to(device).eval().requires_grad_(False)
    longest = max(len(ids) for ids in encode_prompts(tokenizer, prompts["train"] + prompts["validation"]))
    check_fits(TrunkAndHead(policy), longest, params.ppo.max_new_tokens)
    # Into the layers of `policy`: TRL's trainers see a model of which little is to be trained.
    adapter = None if params.ppo.lora is None else add_adapters(policy, params.ppo.lora, params.seed)
    _check_enough(params, len(prompts["train"]), len(comparisons))

    def evaluate(update: int) -> tuple[Row, list[Row]]:
        return evaluate_policy(policy, reference, tokenizer, reward, prompts["validation"], params, update)

    def rows_of(logged: list[Row]) -> list[Row]:
        rows: list[Row] = [{"update": 0, "episodes": 0, **EMPTY, **before}]
        for update, row in enumerate(logged, start=1):
            row = {name: value for name, value in row.items() if name != "step"}  # of which an update may take several
            row = row if params.algorithm == "dpo" else online.kl_per_response(row)
            rows.append({"update": update, "episodes": update * section.batch_size, **EMPTY, **row})
        return rows

    def tell(logged: list[Row]) -> None:
        if on_row is not None:
            on_row(rows_of(logged))

    columns = dpo.COLUMNS if params.algorithm == "dpo" else online.COLUMNS
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        place = Path(place)
        if params.algorithm == "dpo":
            trainer = dpo.make_trainer(policy, reference, tokenizer, comparisons, params, place / WRITING)
        else:
            trainer = online.make_trainer(policy, tokenizer, reward, prompts["train"], params, place / WRITING)
        before, first_samples = evaluate(0)
        run(trainer, RunCallback(params.algorithm, place / RESUME, params.resume_minutes, columns, tell), place)
    after, last_samples = evaluate(section.updates)
    rows = rows_of(history(trainer.state.log_history, columns))
    rows[-1] |= after
    delivered = load_policy(sft)  # without what TRL changed in the config of the model that it trained
    delivered.load_state_dict((policy if adapter is None else adapter.merge_and_unload()).state_dict())
    return Aligned(delivered, tokenizer, rows, first_samples + last_samples)


def evaluate_policy(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    reward: RewardFunction,
    prompts: list[str],
    params: "Params",
    update: int,
) -> tuple[Row, list[Row]]:
    """Sample a response to each of B held-out prompts, with the random numbers of PPO's own evaluations.

    Returns means (eval_reward; eval_kl in nats a response; eval_length in tokens; eval_ended, a share; eval_entropy in
    nats a token), and the first few responses.
    """
    size, temperature = params.ppo.rollout_batch_size, params.ppo.temperature
    bf16 = torch.autocast(policy.device.type, dtype=torch.bfloat16, enabled=params.precision == "bf16")
    with Progress(len(prompts), "summaries", f"{params.algorithm}: sampling") as progress, bf16:
        drawn = sample(
            policy,
            tokenizer,
            prompts,
            temperature=temperature,
            max_new_tokens=params.ppo.max_new_tokens,
            seed=-1 - params.seed,
            first_episode=0,
            batch_size=size,
            progress=progress.update,
        )
        prompt_ids = encode_prompts(tokenizer, prompts)
        kl = drawn.logprobs - log_probabilities(reference, prompt_ids, drawn.token_ids, temperature, size)
    scores = call_reward(reward, prompts, drawn.texts, drawn.ended.tolist(), drawn.token_ids)
    scores = [sum(score) if isinstance(score, list) else score for score in scores]
    statistics = {
        "eval_reward": sum(scores) / len(scores),
        "eval_kl": float(kl.mean()),
        "eval_length": float(drawn.lengths.mean()),
        "eval_ended": float(drawn.ended.mean()),
        "eval_entropy": float(-drawn.logprobs.sum() / drawn.lengths.sum()),
    }
    samples = [
        {"update": update, "prompt": prompt, "response": text, "reward": round(score, 6), "ended": bool(ended)}
        for prompt, text, score, ended in zip(prompts, drawn.texts, scores, drawn.ended, strict=True)
    ]
    return {name: round(value, 6) for name, value in statistics.items()}, samples[:SAMPLES]


def _check_enough(params: "Params", prompts: int, comparisons: int) -> None:
    """Refuse data that would not fill one batch: TRL would train on nothing without a word."""
    section = params.aligner
    if params.algorithm == "dpo":
        what, have, needed = "comparisons", comparisons, section.batch_size
    else:
        what, have, needed = "prompts", prompts, section.batch_size // section.num_generations
    if have < needed:
        raise UserError(f"{params.algorithm}.batch_size: a batch needs {needed} {what}, and there are {have}")
