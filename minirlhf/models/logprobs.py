"""Log-probabilities of responses: one packed pass through a trunk, and the head where a response token is predicted.

Whole sequences are padded on the right: under causal attention padding then reaches no real token, positions count
themselves, and no mask is needed. Where neighbours have the same prompt, it runs once (`Prefixes`). Only the hidden states that predict response tokens leave the trunk, packed into one
row of N real tokens; logits never exist for a prompt position or a padded one.

Shapes: b sequences of a micro-batch, T = P + R - 1 (the last token predicts nothing), N real response tokens, H hidden
size, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minirlhf.models.passes import alike_together, longest_alike, pass_tokens
from minirlhf.models.prefixes import Prefixes
from minirlhf.models.trunk import TrunkAndHead, at_least_float32
from minirlhf.runtime.memory import BatchSize

# Logits alive at once: beyond this (256 MiB in fp32) they are made in pieces, and again in the backward pass.
LOGITS_AT_ONCE = 2**26


@dataclass(frozen=True)
class Sequences:
    """Prompts with their responses, ready for a pass.

    >>> batch = Sequences.pack([[1, 2], [3]], [[4], [5, 6]], "cpu")
    >>> batch.input_ids.tolist()
    [[1, 2], [3, 5]]
    >>> batch.states.tolist(), batch.targets.tolist()
    ([1, 2, 3], [4, 5, 6])
    >>> shared = Sequences.pack([[1, 2], [1, 2]], [[4], [5, 6]], "cpu", share=True)
    >>> shared.prefixes.input_ids.tolist(), shared.input_ids.tolist(), shared.states.tolist()
    ([[1]], [[2, 0], [2, 5]], [0, 2, 3])
    """

    input_ids: Tensor  # [b, T], padded on the right with 0; after the prefixes, where there are any
    states: Tensor  # [N] slots of the flattened [b * T] whose hidden state predicts a response token
    targets: Tensor  # [N] those tokens, sequence by sequence
    prefixes: Prefixes | None  # prompts that neighbours share, all but their last token

    @staticmethod
    def pack(
        prompt_ids: Sequence[list[int]],
        response_ids: Sequence[list[int]],
        device: torch.device | str,
        share: bool = False,
    ) -> "Sequences":
        """With `share` for trunks that `shares_prefixes` holds for."""
        prompts = [prompt for prompt, _ in groupby(prompt_ids)]
        prefixes = None
        if share and len(prompts) < len(prompt_ids) and max(map(len, prompts)) > 1:
            owner = [at for at, (_, alike) in enumerate(groupby(prompt_ids)) for _ in alike]
            prefixes = Prefixes.pack([prompt[:-1] for prompt in prompts], owner, device)
            prompt_ids = [prompt[-1:] for prompt in prompt_ids]
        inputs = [prompt + response[:-1] for prompt, response in zip(prompt_ids, response_ids, strict=True)]
        width = max(len(ids) for ids in inputs)
        states = [
            row * width + len(prompt) - 1 + step
            for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True))
            for step in range(len(response))
        ]
        targets = [token for response in response_ids for token in response]
        return Sequences(
            input_ids=torch.tensor([ids + [0] * (width - len(ids)) for ids in inputs]).to(device),
            states=torch.tensor(states).to(device),
            targets=torch.tensor(targets).to(device),
            prefixes=prefixes,
        )


def select_states(trunk: nn.Module, batch: Sequences) -> Tensor:
    """Hidden states [N, H] that predict the response tokens."""
    if batch.prefixes is not None:
        hidden = batch.prefixes.continued(trunk, batch.input_ids)
    else:
        # All ones: padding is on the right, so causal attention keeps it from every real token.
        mask = torch.ones_like(batch.input_ids)
        hidden = trunk(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.states)


def token_logprobs(parts: TrunkAndHead, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [N] of `targets` [N] under softmax(logits / temperature), from hidden states [N, H].

    Logits of at most LOGITS_AT_ONCE numbers are alive at a time; larger work is done in pieces that are computed
    again in the backward pass, so memory does not grow with the batch.
    """

    def piece(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = at_least_float32(parts.logits(hidden)) / temperature
        return torch.log_softmax(logits, dim=-1).gather(-1, targets[:, None])[:, 0]

    rows = max(1, LOGITS_AT_ONCE // parts.vocabulary)
    if len(targets) <= rows:
        return piece(hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([checkpoint(piece, *part, use_reentrant=False) for part in pieces])


@torch.no_grad()
def response_logprobs(
    parts: TrunkAndHead,
    prompt_ids: Sequence[list[int]],
    response_ids: Sequence[list[int]],
    temperature: float,
    size: BatchSize,
) -> list[Tensor]:
    """Of each of B responses the log-probabilities of its tokens, nats in float64, under softmax(logits / temperature).

    Args:
        size: most sequences in one pass; it halves where memory runs out.
    """
    was_training = parts.model.training
    parts.model.eval()
    found: list[Tensor] = [torch.zeros(0)] * len(prompt_ids)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompt_ids, response_ids, strict=True)]

    def add(group: Sequence[int]) -> None:
        responses = [response_ids[row] for row in group]
        batch = Sequences.pack([prompt_ids[row] for row in group], responses, parts.device, share=True)
        logprobs = token_logprobs(parts, select_states(parts.trunk, batch), batch.targets, temperature)
        for row, each in zip(group, logprobs.double().cpu().split([len(ids) for ids in responses]), strict=True):
            found[row] = each

    prompts = [tuple(ids) for ids in prompt_ids]
    alike, longest = Counter(prompts), longest_alike(prompts, lengths)
    limit = pass_tokens(parts.device.type)

    def count(size: int, first: int) -> int:
        """Sequences in a pass, each with its share of the prompt."""
        longest_response = longest[first] - len(prompts[first])
        return min(size, int(limit / (longest_response + len(prompts[first]) / alike[prompts[first]])))

    size.each(alike_together(prompts, lengths), add, count)
    parts.model.train(was_training)
    return found
