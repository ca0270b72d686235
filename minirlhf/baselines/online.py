"""RLOO and GRPO: TRL's trainers, with the sampler, the encoding and the rewards of PPO here.

What is TRL's: groups, baselines, advantages, KL, losses, optimizer. What is not:

- responses come from `minirlhf.sampling`, from token ids as everywhere here. TRL would read `<|endoftext|>` inside a
  post as the end of text, and `transformers.generate` runs a prompt again for every response to it;
- log-probabilities come from the trunk and head of `minirlhf.models.trunk`. TRL pads prompts on the left and leaves
  positions to the model: GPT-2 then counts the padding too, and would learn on other probabilities than it sampled
  from. And on a CPU TRL takes the vocabulary head of every position of the prompt as well.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from minirlhf.models.kernels import use_fast_kernels
from minirlhf.models.logprobs import token_logprobs
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.sampling.draw import episode_seeds
from minirlhf.sampling.generate import generate
from minirlhf.text.chat import ChatPrompt
from minirlhf.text.prompts import decode_response, encode_prompts
from minirlhf.training.loop import run_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from minirlhf.settings.params import Params

# TRL's name of a figure -> its column in details/ppo.csv.
COLUMNS = {
    "score": "reward",
    "kl": "kl",  # nats a token; `kl_per_response` makes it nats a response
    "completions/mean_length": "length",
    "ended": "ended",
    "entropy": "entropy",
    "loss": "policy_loss",
    "clip_ratio/region_mean": "clip_fraction",
    "grad_norm": "policy_grad_norm",
    "learning_rate": "learning_rate",
}


def text_reward(
    reward: RewardFunction,
    tokenizer: "PreTrainedTokenizerBase",
    missing_eos_penalty: float,
    chats: Mapping[str, str] = MappingProxyType({}),
) -> Callable[..., list[float]]:
    """`reward` as TRL calls a reward function: minus the penalty for a response that did not end by itself.

    Responses are decoded here from their ids, and have ended if their last id is EOS. The mean score (before the
    penalty, as PPO logs it) and the share that ended go into TRL's log as `score` and `ended`.

    Args:
        chats: by their text, the prompts that are chats; `reward` is to see those.
    """

    def score(prompts, completion_ids, log_metric=None, **_: Any) -> list[float]:
        responses = [decode_response(tokenizer, ids) for ids in completion_ids]
        ended = [ids[-1] == tokenizer.eos_token_id for ids in completion_ids]
        prompts = [chats.get(prompt, prompt) for prompt in prompts]
        scores = call_reward(reward, prompts, responses, ended, completion_ids)
        scores = [sum(score) if isinstance(score, list) else score for score in scores]
        if log_metric is not None:
            log_metric("score", sum(scores) / len(scores))
            log_metric("ended", sum(ended) / len(ended))
        return [score - missing_eos_penalty * (not done) for score, done in zip(scores, ended, strict=True)]

    return score


class _SampledHere:
    """A part of both trainers: prompts as ids, the sampler and the log-probabilities of this project."""

    _sampled = 0  # responses so far: the number of the next episode

    def __init__(self, *args, chats: Mapping[str, str], **kwargs):
        super().__init__(*args, **kwargs)
        self._chats = chats
        use_fast_kernels(self.ref_model)
        self._parts = {model: TrunkAndHead(model) for model in (self.model, self.ref_model)}

    def _get_train_sampler(self, dataset=None):
        self._sampler = super()._get_train_sampler(dataset)
        return self._sampler

    def go_on(self, updates: int) -> None:
        """Sample and order prompts as after so many updates: TRL's checkpoints hold neither."""
        self._sampled = updates * self.args.generation_batch_size
        for _ in range(updates // (self._sampler.num_samples // self._sampler.batch_size)):
            torch.randperm(self._sampler.num_samples, generator=self._sampler.generator)  # of an epoch that is over

    def _tokenize_prompts(self, prompts: list[str]):
        return encode_prompts(self._tokenizer, [self._chats.get(prompt, prompt) for prompt in prompts]), None, {}

    def _sample(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """Responses to prompts that stand `num_generations` times in a row each."""
        seeds = episode_seeds(self.args.seed, self._sampled, len(prompt_ids))
        self._sampled += len(prompt_ids)
        with self.accelerator.autocast():
            generation = generate(
                self._parts[self.model],
                prompt_ids[:: self.num_generations],
                samples_per_prompt=self.num_generations,
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                eos_token_id=self._tokenizer.eos_token_id,
                pad_token_id=self._tokenizer.pad_token_id,
                seeds=seeds,
                batch_size=self.args.per_device_train_batch_size,
            )
        return generation.token_ids()

    def _get_per_token_logps_and_entropies(
        self, model, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, batch_size: int | None = None, **_
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities [B, R] of the last R = `logits_to_keep` of `input_ids` [B, T], 0 where they are padding.

        The entropy is only logged: as PPO logs it, by -log p of what was sampled, which has it as its mean.
        """
        size, pieces = batch_size or len(input_ids), []
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            positions = (mask.cumsum(1) - 1).clamp(min=0)  # from where the prompt begins, as the sampler counts
            real = mask[:, -logits_to_keep:].bool()
            with self.accelerator.autocast():
                hidden = self._parts[model].hidden(ids, mask, position_ids=positions, use_cache=False)
                states, targets = hidden[:, -logits_to_keep - 1 : -1][real], ids[:, -logits_to_keep:][real]
                logprobs = token_logprobs(self._parts[model], states, targets, self.temperature)
            pieces.append(logprobs.new_zeros(real.shape).masked_scatter(real, logprobs))
        logprobs = torch.cat(pieces)
        return logprobs, -logprobs.detach(), None


class _GoOn(TrainerCallback):
    """Tells a trainer how many updates its checkpoint comes after, once it has read it."""

    def __init__(self, trainer: _SampledHere):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.trainer.go_on(state.global_step // args.num_iterations)


class SummaryRLOOTrainer(_SampledHere, RLOOTrainer):
    """TRL's RLOOTrainer; see the top of this file."""

    def _generate_single_turn(self, prompt_ids, *others):
        return self._sample(prompt_ids)


class SummaryGRPOTrainer(_SampledHere, GRPOTrainer):
    """TRL's GRPOTrainer; see the top of this file."""

    def _generate_single_turn(self, prompt_ids, *others):
        return self._sample(prompt_ids), None


def make_trainer(
    policy: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    reward: RewardFunction,
    prompts: list[str],
    params: "Params",
    folder: Path,
) -> RLOOTrainer | GRPOTrainer:
    """TRL's trainer for `params.algorithm`: rloo or grpo. The reference is loaded from the folder of `policy`."""
    from datasets import Dataset

    section = params.aligner
    # A chat by its text, which is all that TRL's data set keeps of it.
    chats = {str(prompt): prompt for prompt in prompts if isinstance(prompt, ChatPrompt)}
    arguments = {
        **run_arguments(params, section, folder),
        "max_steps": section.updates * section.num_iterations,
        "logging_steps": section.num_iterations,  # a row an update
        "lr_scheduler_type": "linear",
        "num_generations": section.num_generations,
        "num_iterations": section.num_iterations,
        "beta": section.beta,
        "temperature": params.ppo.temperature,
        "max_completion_length": params.ppo.max_new_tokens,
        "disable_dropout": True,
    }
    if params.algorithm == "rloo":
        kind, config = SummaryRLOOTrainer, RLOOConfig(**arguments)
    else:
        # The loss of Shao et al. 2024: a mean over tokens, then over responses. TRL's default is a later one.
        kind, config = SummaryGRPOTrainer, GRPOConfig(**arguments, loss_type="grpo")
    trainer = kind(
        model=policy,
        chats=chats,
        reward_funcs=text_reward(reward, tokenizer, params.ppo.missing_eos_penalty, chats),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )
    trainer.add_callback(_GoOn(trainer))
    return trainer


def kl_per_response(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose KL is in nats a response, as PPO's: TRL logs the mean over tokens."""
    return row | {"kl": round(row["kl"] * row["length"], 6)}
