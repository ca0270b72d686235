"""The one sampler: rollouts, evaluation and the reward model's candidates are all drawn here.

How it differs from `model.generate()`:
- the distribution is softmax(logits / temperature) and nothing else: the checkpoint's own generation settings (top-k,
  minimum length, ...) are not read, so sampled log-probabilities are exactly those that a PPO loss differentiates;
- each episode has a random stream of its own and is sampled by inverting the cumulative distribution, so how episodes
  are split over batches, processes or a resumed run changes no sample;
- prompts are padded on the left, with positions that count real tokens only; masks come from lengths, never from ids;
- on a GPU one step of fixed shapes is captured as a CUDA graph (minirlhf/sampling/static.py); elsewhere
  finished rows are dropped;
- keys and values live in one preallocated buffer, prompts are prefilled in groups of similar length, the head sees
  the last position only, and sampling stops when all rows have ended.

Shapes: B responses, P longest prompt, R longest response, V vocabulary, H hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from minirlhf.models.passes import pass_tokens
from minirlhf.models.trunk import TrunkAndHead, check_fits
from minirlhf.runtime.errors import TrainingError, UserError
from minirlhf.runtime.memory import BatchSize
from minirlhf.sampling.cache import KeyValueBuffer
from minirlhf.sampling.draw import sample_tokens, uniform_numbers
from minirlhf.sampling.static import can_be_static, decode_static


@dataclass(frozen=True)
class Generation:
    """Sampled responses, padded on the right to the longest, on the model's device, in the order of the prompts."""

    response_ids: Tensor  # [B, R] int64; the padding id after the end
    response_length: Tensor  # [B] int64, at least 1; EOS included
    ended: Tensor  # [B] bool: EOS was generated (False: cut at the limit)
    logprobs: Tensor | None  # [B, R] of the sampled tokens, under the sampling distribution; 0 after the end
    values: Tensor | None  # [B, R] value of the state before each token, if a value head was given; 0 after the end

    def token_ids(self) -> list[list[int]]:
        """The responses as B lists of ids without padding, EOS included where it was generated."""
        return [
            row[:length] for row, length in zip(self.response_ids.tolist(), self.response_length.tolist(), strict=True)
        ]


@torch.no_grad()
def generate(
    model: nn.Module | TrunkAndHead,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_token_id: int | None,
    pad_token_id: int,
    seeds: Sequence[int] | None = None,
    batch_size: int | BatchSize = 64,
    samples_per_prompt: int = 1,
    value_head: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Generation:
    """Sample `samples_per_prompt` responses to each prompt.

    Args:
        model: a causal LM (its dropout is off while sampling), or one already split into trunk and head.
        prompt_ids: prompts as lists of ids, none empty.
        max_new_tokens: limit of the response, EOS included.
        temperature: of the softmax; 0 takes the most likely token (log-probabilities are then those of temperature 1).
        seeds: one a response (prompt by prompt, then sample by sample); needed unless the temperature is 0.
        batch_size: responses sampled at once; halves where memory runs out. Changes speed and memory, not the samples.
        value_head: maps hidden states [B, H] to values [B].
        progress: called with the number of responses finished since the last call.

    Raises:
        UserError: an empty prompt, too few seeds, or more tokens than the model has positions.
        TrainingError: the model's log-probabilities are not finite.
    """
    parts = model if isinstance(model, TrunkAndHead) else TrunkAndHead(model)
    count = len(prompt_ids) * samples_per_prompt
    _check_arguments(parts, prompt_ids, max_new_tokens, temperature, seeds, count)
    # Longest first: a batch that does not fit into memory shows at once.
    order = sorted(range(len(prompt_ids)), key=lambda index: -len(prompt_ids[index]))
    if not isinstance(batch_size, BatchSize):
        batch_size = BatchSize(batch_size, "sampling: batch_size", "fewer max_new_tokens or shorter prompts")
    shape = (count, max_new_tokens)
    ids = torch.full(shape, pad_token_id, dtype=torch.long, device=parts.device)
    logprobs = torch.zeros(shape, device=parts.device)
    values = torch.zeros(shape, device=parts.device) if value_head is not None else None
    length = torch.zeros(count, dtype=torch.long, device=parts.device)
    ended = torch.zeros(count, dtype=torch.bool, device=parts.device)

    limit = pass_tokens(parts.device.type)

    def sample_group(chosen: Sequence[int]) -> None:
        rows = [index * samples_per_prompt + sample for index in chosen for sample in range(samples_per_prompt)]
        drawn = [] if temperature == 0 else [seeds[row] for row in rows]
        uniforms = uniform_numbers(drawn, max_new_tokens, parts.device) if drawn else None
        into = torch.tensor(rows, device=parts.device)
        ids[into], logprobs[into], ended[into] = pad_token_id, 0, False  # where an attempt that ran out of memory wrote
        state = _prefill(parts, [prompt_ids[index] for index in chosen], max_new_tokens, samples_per_prompt, limit)
        out = Sampled(into, ids, logprobs, values, length, ended)
        decode = decode_static if parts.device.type == "cuda" and can_be_static(parts) else _decode
        decode(parts, state, out, uniforms, temperature, max_new_tokens, eos_token_id, value_head)
        if progress is not None:
            progress(len(rows))

    was_training = parts.model.training
    parts.model.eval()
    batch_size.each(order, sample_group, lambda size, _: size // samples_per_prompt)
    parts.model.train(was_training)
    if not torch.isfinite(logprobs).all():
        raise TrainingError(
            "sampling: the model's log-probabilities are not finite numbers: its weights are damaged, or too high a "
            "learning_rate broke them"
        )

    longest = int(length.max()) if count else 0
    return Generation(
        response_ids=ids[:, :longest],
        response_length=length,
        ended=ended,
        logprobs=logprobs[:, :longest],
        values=None if values is None else values[:, :longest],
    )


@dataclass
class Sampled:
    """Where the rows of a batch write their results: `rows` [b] index into the whole output."""

    rows: Tensor
    ids: Tensor
    logprobs: Tensor
    values: Tensor | None
    length: Tensor
    ended: Tensor


@dataclass
class State:
    """A batch in the middle of decoding: b rows still sampled, prompts padded on the left to P."""

    cache: "KeyValueBuffer"
    attention_mask: Tensor  # [b, P + max_new_tokens], True on real tokens and on those to come
    prompt_length: Tensor  # [b]
    padded_prompt: int  # P
    hidden: Tensor  # [b, H] at the last real token


def _decode(
    parts: TrunkAndHead,
    state: State,
    out: Sampled,
    uniforms: Tensor | None,
    temperature: float,
    max_new_tokens: int,
    eos_token_id: int | None,
    value_head: Callable[[Tensor], Tensor] | None,
) -> None:
    rows, active = out.rows, torch.ones_like(out.rows, dtype=torch.bool)
    for step in range(max_new_tokens):
        drawn = None if uniforms is None else uniforms[:, step]
        tokens, logprobs = sample_tokens(parts.logits(state.hidden), temperature, drawn)
        written = rows[active]
        out.ids[written, step] = tokens[active]
        out.logprobs[written, step] = logprobs[active]
        out.length[written] = step + 1
        if out.values is not None:
            out.values[written, step] = value_head(state.hidden)[active].float()
        if eos_token_id is not None:
            out.ended[rows[active & (tokens == eos_token_id)]] = True
            active = active & (tokens != eos_token_id)
        remaining = int(active.sum())
        if remaining == 0 or step == max_new_tokens - 1:
            return
        # Dropping finished rows copies the cache: worth it once half of them are done.
        if remaining <= len(rows) // 2:
            state.cache.select(active)
            state.attention_mask, state.prompt_length = (
                state.attention_mask[active],
                state.prompt_length[active],
            )
            rows, tokens = rows[active], tokens[active]
            uniforms = None if uniforms is None else uniforms[active]
            active = active[active]
        state.hidden = parts.hidden(
            tokens[:, None],
            state.attention_mask[:, : state.padded_prompt + step + 1],
            position_ids=(state.prompt_length + step)[:, None],
            past_key_values=state.cache,
            use_cache=True,
        )[:, -1]


def _prefill(parts: TrunkAndHead, prompts: list[Sequence[int]], max_new_tokens: int, repeats: int, limit: int) -> State:
    """Run the prompts (longest first) and lay their keys and values out for `repeats` rows each.

    Neighbours that are the same run once.
    """
    device, padded = parts.device, len(prompts[0])
    alike = [(prompt, sum(repeats for _ in same)) for prompt, same in groupby(prompts)]
    prompts, rows = [prompt for prompt, _ in alike], [number for _, number in alike]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    cache = KeyValueBuffer(sum(rows), padded, padded + max_new_tokens)
    hidden, first = [], 0
    while first < len(prompts):
        width = len(prompts[first])
        group = prompts[first : first + max(1, limit // width)]
        input_ids, attention_mask, position_ids = pad_left(group, device)
        prefix = DynamicCache()
        states = parts.hidden(
            input_ids, attention_mask, position_ids=position_ids, past_key_values=prefix, use_cache=True
        )
        hidden.append(states[:, -1])
        cache.fill(sum(rows[:first]), prefix, _owners(rows[first : first + len(group)], device))
        first += len(group)
    positions = torch.arange(padded + max_new_tokens, device=device)
    mask = positions[None, :] >= padded - lengths[:, None]  # [prompts, P + max_new_tokens]
    owner = _owners(rows, device)
    return State(
        cache=cache,
        attention_mask=mask[owner],
        prompt_length=lengths[owner],
        padded_prompt=padded,
        hidden=torch.cat(hidden)[owner],
    )


def _owners(rows: list[int], device: torch.device) -> Tensor:
    """Which prompt each row is of, where the prompts have so many rows.

    >>> _owners([2, 1], "cpu").tolist()
    [0, 0, 1]
    """
    return torch.tensor([prompt for prompt, number in enumerate(rows) for _ in range(number)], device=device)


def pad_left(sequences: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask (bool) and position ids, each [B, P], padded on the left with id 0 and position 0.

    >>> pad_left([[5, 6, 7], [8]], "cpu")[0].tolist(), pad_left([[5, 6, 7], [8]], "cpu")[2].tolist()
    ([[5, 6, 7], [0, 0, 8]], [[0, 1, 2], [0, 0, 0]])
    """
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[0] * (width - len(sequence)) + list(sequence) for sequence in sequences])
    padding = torch.tensor([width - len(sequence) for sequence in sequences])[:, None]
    slots = torch.arange(width)[None, :]
    positions = (slots - padding).clamp(min=0)
    return ids.to(device), (slots >= padding).to(device), positions.to(device)


def _check_arguments(parts, prompt_ids, max_new_tokens, temperature, seeds, count) -> None:
    empty = [index for index, prompt in enumerate(prompt_ids) if len(prompt) == 0]
    if empty:
        raise UserError(f"prompt {empty[0]} is empty: every prompt needs at least one token")
    if temperature < 0:
        raise UserError(f"temperature is {temperature}: it must be 0 (greedy) or above")
    if temperature > 0 and (seeds is None or len(seeds) != count):
        raise UserError(f"sampling {count} responses needs {count} seeds, not {0 if seeds is None else len(seeds)}")
    if prompt_ids:
        check_fits(parts, max(len(prompt) for prompt in prompt_ids), max_new_tokens)
