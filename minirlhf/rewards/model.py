"""A sequence-classification model as a reward function over text, with a tokenizer of its own.

It reads text, so its tokenizer need not be the policy's. Sequences are batched by length, and a decoder's score is
taken at the last real token, known by length: GPT-2's padding token is its EOS, so looking for padding in the ids would
take a generated EOS for padding.
"""

import math
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minirlhf.hub.configs import LIKELIHOOD, TOKENIZER, WEIGHTS, find_model, read_tokenizer
from minirlhf.hub.locate import model_place
from minirlhf.models.adapters import plain
from minirlhf.models.kernels import use_fast_kernels
from minirlhf.models.loading import check_vocabulary, load_reward_model
from minirlhf.models.passes import alike_together, longest_alike
from minirlhf.models.prefixes import last_states, shares_prefixes
from minirlhf.models.trunk import at_least_float32
from minirlhf.rewards.likelihood import Likelihood
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object
from minirlhf.runtime.memory import BatchSize
from minirlhf.runtime.progress import Progress
from minirlhf.text.chat import spoken
from minirlhf.text.prompts import encode_all, encode_prompts, first_tokens, spell_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Format = Literal["concat", "pair"]

# Padded tokens x width in one pass on a CPU, whose cache holds no more: of DeBERTa-v3-large (1,024 wide) 1,024 tokens
# at once take less time a token than 8,192 do.
CPU_ELEMENTS = 2**20


class RewardModel:
    """Scores (prompt, response) by (raw - mean) / scale, where raw is the model's score, and the likelihood's if any.

    Args:
        model: a sequence-classification model with one label.
        tokenizer: its own tokenizer.
        format: "concat": prompt and response as one text, with EOS exactly where the response ended by itself, as the
            models trained here read it; "pair": question and answer as a pair of texts, as OpenAssistant's read it;
            None: "concat" for a decoder, "pair" for an encoder.
        mean, scale: normalisation; reference summaries score 0 on average under the right mean.
        max_length: longest input in tokens; None: what the model has positions for. What is too long loses tokens of
            the prompt (the first ones in "concat", the last ones in "pair"), never of the response.
        batch_size: sequences in one pass where they are the longest; of shorter ones as many more as have no more
            tokens. On a CPU at most `batch_size`, and `CPU_ELEMENTS`. Halves where memory runs out.
        precision: "fp32" or "bf16".
        likelihood: what is added to the model's score (minirlhf/rewards/likelihood.py).
        desc: what a progress bar calls the scoring; None: no bar, for short batches.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        format: Format | None = "concat",
        mean: float = 0.0,
        scale: float = 1.0,
        max_length: int | None = None,
        batch_size: int = 16,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        likelihood: Likelihood | None = None,
        desc: str | None = None,
    ):
        if format is None:
            format = "concat" if hasattr(model, "score") else "pair"
        model = plain(model, "reward model")
        if model.config.num_labels != 1:
            raise UserError(f"reward model: it has {model.config.num_labels} labels; a reward has 1")
        if format not in ("concat", "pair"):
            raise UserError(f"reward model: format is {format!r}; it must be 'concat' or 'pair'")
        self.model, self.tokenizer, self.format = model.to(device).eval(), tokenizer, format
        self.mean, self.scale = mean, scale
        self.max_length = max_length or _longest_input(model, tokenizer)
        self.batch_size = BatchSize(batch_size, "reward model: batch_size", "a smaller one, bf16 or shorter prompts")
        self.device, self.precision = torch.device(device), precision
        use_fast_kernels(model)
        self._shares = hasattr(model, "score") and shares_prefixes(model.base_model)
        self.likelihood, self.desc = likelihood, desc
        if format == "concat" and tokenizer.eos_token_id is None:
            raise UserError("reward model: its tokenizer has no EOS, which the format 'concat' needs; try 'pair'")

    @classmethod
    def load(cls, name: str | Path, revision: str | None = None, **options) -> "RewardModel":
        """The reward model of a folder or a hub name.

        Its `reward.json` holds mean, scale and format (else None). Where it also names a `model` (and `revision`), the
        folder holds no weights: they are those of that pretrained model. Where it has weights for a `likelihood`, the
        language model is in a folder of that name. `options` go to the constructor and win.
        """
        settings = _settings(name, revision)
        if weights := settings.get("likelihood"):
            of = {key: options[key] for key in ("device", "precision") if key in options}
            policy = find_model(name, revision, (*TOKENIZER, WEIGHTS), LIKELIHOOD)
            if not policy.is_dir():
                raise UserError(f"{name}: no folder {LIKELIHOOD} in it, which its reward.json weighs")
            options = {"likelihood": Likelihood.load(policy, weights, **of)} | options
        if "model" in settings:
            name, revision = model_place(settings["model"]), settings.get("revision")
            settings["format"] = settings.get("format") or _settings(name, revision).get("format")
        settings = {key: settings[key] for key in ("format", "mean", "scale", "max_length") if key in settings}
        model, tokenizer = load_reward_model(name, revision), read_tokenizer(name, revision)
        check_vocabulary(model, tokenizer, name)
        return cls(model, tokenizer, **({"format": None} | settings | options))

    def __call__(self, prompts: list[str], responses: list[str], ended: list[bool]) -> list[float]:
        """Normalised scores of B responses; `ended` says which of them ended by themselves."""
        sequences = self.encode(prompts, responses, ended)
        scores = [0.0] * len(sequences)
        with nullcontext() if self.desc is None else Progress(len(scores), "summaries", self.desc) as progress:

            def score(group: list[int]) -> None:
                raws = self._score([prompts[i] for i in group], [sequences[i] for i in group])
                for index, raw in zip(group, raws.tolist(), strict=True):
                    scores[index] = (raw - self.mean) / self.scale
                if progress is not None:
                    progress.update(len(group))

            # Those of like length together, since all are padded to the longest; the longest first: where the memory
            # does not suffice, it shows at once.
            lengths = [len(sequence["input_ids"]) for sequence in sequences]
            order, longest = alike_together(prompts, lengths), longest_alike(prompts, lengths)
            width = self.model.config.get_text_config().hidden_size

            def count(rows: int, first: int) -> int:
                """Sequences in a pass that begins with this one."""
                if self.device.type == "cpu":
                    return min(rows, CPU_ELEMENTS // (width * longest[first]))
                return rows * lengths[order[0]] // longest[first]

            self.batch_size.each(order, score, count)
        if self.likelihood is None:
            return scores
        added = self.likelihood(prompts, responses, ended)
        return [score + more / self.scale for score, more in zip(scores, added, strict=True)]

    def encode(self, prompts: list[str], responses: list[str], ended: list[bool]) -> list[dict[str, list[int]]]:
        """What the model reads of B responses, in scoring as in training: `input_ids`, and `token_type_ids` if any.

        Raises UserError for a response that is too long for the model.
        """
        if self.format == "pair":
            return self._encode_pairs(prompts, responses)
        return self._concatenate(prompts, responses, ended)

    def _concatenate(self, prompts: list[str], responses: list[str], ended: list[bool]) -> list[dict[str, list[int]]]:
        """Prompt, response, and EOS where it ended, each encoded alone, as the reward stage trains on them.

        They follow the BOS that the tokenizer begins every text with, if it does.
        """
        first = first_tokens(self.tokenizer)
        prompt_ids, response_ids = encode_prompts(self.tokenizer, prompts), encode_all(self.tokenizer, responses)
        sequences = []
        for prompt, response, complete in zip(prompt_ids, response_ids, ended, strict=True):
            begin = first if prompt[: len(first)] == first else []
            response = [*response, self.tokenizer.eos_token_id] if complete else response
            self._check_fits(len(begin) + len(response))
            rest = prompt[len(begin) :] + response
            sequences.append({"input_ids": begin + rest[len(begin) - self.max_length :]})
        return sequences

    def _encode_pairs(self, prompts: list[str], responses: list[str]) -> list[dict[str, list[int]]]:
        """Question and answer with the special tokens of the model's own tokenizer."""
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        for ids in encode_all(self.tokenizer, responses):
            self._check_fits(len(ids) + special)
        prompts = spell_out(self.tokenizer, [spoken(prompt) for prompt in prompts])
        responses = spell_out(self.tokenizer, responses)
        options = {"truncation": "only_first", "max_length": self.max_length, "split_special_tokens": True}
        encoded = self.tokenizer(prompts, responses, return_attention_mask=False, **options)
        if self.tokenizer.is_fast:
            self.tokenizer.backend_tokenizer.no_truncation()  # which would be saved with it
        return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]

    def _check_fits(self, tokens: int) -> None:
        if tokens >= self.max_length:
            raise UserError(f"reward model: a response of {tokens} tokens does not fit its {self.max_length} positions")

    @torch.no_grad()
    def _score(self, prompts: list[str], sequences: list[dict[str, list[int]]]) -> Tensor:
        """Raw scores [b] of encoded inputs."""
        inputs = {name: rows.to(self.device) for name, rows in pad(sequences).items()}
        if self._shares and len(set(prompts)) < len(prompts):
            groups = [at for at, (_, alike) in enumerate(groupby(prompts)) for _ in alike]
            inputs["groups"] = torch.tensor(groups, device=self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return raw_scores(self.model, **inputs).cpu()


def _settings(name: str | Path, revision: str | None) -> dict:
    """What a reward model's `reward.json` holds; nothing where there is none. UserError for numbers that are none."""
    file = find_model(name, revision, TOKENIZER) / "reward.json"
    settings = read_object(file) if file.exists() else {}
    for key in ("mean", "scale"):
        number = settings.get(key, 1)
        if not isinstance(number, (int, float)) or not math.isfinite(number) or (key, number) == ("scale", 0):
            raise UserError(f"{file}: {key} is {number!r}: not a finite number, or a scale of 0")
    return settings


def pad(sequences: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """What `raw_scores` takes of N sequences: each of their entries right-padded to [N, T], and their `lengths` [N]."""
    padded = {
        name: pad_sequence([torch.tensor(sequence[name]) for sequence in sequences], batch_first=True)
        for name in sequences[0]
    }
    return padded | {"lengths": torch.tensor([len(sequence["input_ids"]) for sequence in sequences])}


def raw_scores(
    model: "PreTrainedModel", input_ids: Tensor, lengths: Tensor, groups: Tensor | None = None, **inputs: Tensor
) -> Tensor:
    """Scores [N], not normalised, of right-padded `input_ids` [N, T]; lengths [N]; in training and in scoring.

    An encoder pools where it always does; a decoder is read at the last token. `groups` [N], not falling, says which
    sequences begin alike, where the model `shares_prefixes`. `inputs` are what else it reads of every token, [N, T].
    """
    if not hasattr(model, "score"):
        mask = (torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]).long()
        return at_least_float32(model(input_ids=input_ids, attention_mask=mask, **inputs).logits[:, 0])
    if groups is not None:
        rows = [row[:length] for row, length in zip(input_ids.tolist(), lengths.tolist(), strict=True)]
        alike = groupby(zip(groups.tolist(), rows, strict=True), key=itemgetter(0))
        last = last_states(model.base_model, [[row for _, row in group] for _, group in alike], input_ids.device)
        return at_least_float32(model.score(last)[:, 0])
    # All ones: under causal attention padding on the right reaches no real token.
    mask = torch.ones_like(input_ids)
    hidden = model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False, **inputs)[0]
    last = hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1]  # [N, width]
    return at_least_float32(model.score(last)[:, 0])


def _longest_input(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """What both model and tokenizer allow; either may not say."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    # RoBERTa-type models count positions from padding_idx + 1.
    embeddings = getattr(model.base_model, "embeddings", None)
    offset = getattr(embeddings, "padding_idx", None) if model.config.model_type in ("roberta", "xlm-roberta") else None
    return min(positions - (0 if offset is None else offset + 1), tokenizer.model_max_length)
