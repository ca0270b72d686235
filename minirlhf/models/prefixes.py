"""Sequences that begin alike, as summaries of one post do: what they share runs through a decoder once.

A post is several times as long as its summary, so five summaries of it cost less than half of five passes. Keys and
values of what is shared are laid out for each sequence that follows, as in sampling; gradients flow back through them.

Shapes: g shared beginnings, P the longest of them, b sequences that follow, T the longest of these, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from minirlhf.models.passes import longest_first, passes


@dataclass(frozen=True)
class Prefixes:
    """Beginnings, padded on the left, and which of them each sequence follows."""

    input_ids: Tensor  # [g, P]
    lengths: Tensor  # [g], some above 0
    owner: Tensor  # [b]

    @staticmethod
    def pack(beginnings: Sequence[Sequence[int]], owner: Sequence[int], device: torch.device | str) -> "Prefixes":
        width = max(map(len, beginnings))
        return Prefixes(
            input_ids=torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in beginnings]).to(device),
            lengths=torch.tensor([len(ids) for ids in beginnings]).to(device),
            owner=torch.tensor(owner).to(device),
        )

    def continued(self, trunk: nn.Module, input_ids: Tensor) -> Tensor:
        """Hidden states [b, T, H] of what follows, `input_ids` [b, T]. Padded on the right, which no real token sees."""
        width, device = self.input_ids.shape[1], self.input_ids.device
        padding = width - self.lengths[:, None]
        slots = torch.arange(width, device=device)
        mask, cache = slots >= padding, DynamicCache()
        options = {"past_key_values": cache, "use_cache": True}
        trunk(input_ids=self.input_ids, attention_mask=mask, position_ids=(slots - padding).clamp(min=0), **options)
        cache.batch_select_indices(self.owner)
        positions = self.lengths[self.owner][:, None] + torch.arange(input_ids.shape[1], device=device)
        mask = torch.cat([mask[self.owner], torch.ones_like(input_ids, dtype=torch.bool)], dim=1)
        return trunk(input_ids=input_ids, attention_mask=mask, position_ids=positions, **options)[0]


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens that all begin with; each keeps at least one of its own.

    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 1]]), common_prefix([[5], [5, 6]])
    (2, 0)
    """
    limit = min(map(len, sequences)) - 1
    first = sequences[0]
    return next((at for at in range(limit) if any(row[at] != first[at] for row in sequences)), limit)


def last_states(trunk: nn.Module, groups: Sequence[Sequence[Sequence[int]]], device: torch.device | str) -> Tensor:
    """Hidden states [N, H] at the last token of the N sequences of ids in all groups, in order.

    Args:
        trunk: of a decoder for which `shares_prefixes`.
        groups: sequences that begin alike, none empty.
    """
    shared = [common_prefix(group) for group in groups]
    tokens = [start + sum(len(row) - start for row in group) for start, group in zip(shared, groups, strict=True)]
    begin = list(accumulate((len(group) for group in groups), initial=0))
    found: list[Tensor] = []
    order: list[int] = []
    for chosen in passes(longest_first(shared), tokens, torch.device(device).type):
        rests = [row[shared[index] :] for index in chosen for row in groups[index]]
        width = max(map(len, rests))
        ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in rests]).to(device)
        owner = [at for at, index in enumerate(chosen) for _ in groups[index]]
        if any(shared[index] for index in chosen):
            prefixes = Prefixes.pack([groups[index][0][: shared[index]] for index in chosen], owner, device)
            hidden = prefixes.continued(trunk, ids)
        else:
            hidden = trunk(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
        ends = torch.tensor([len(row) - 1 for row in rests], device=ids.device)
        found.append(hidden[torch.arange(len(rests), device=ids.device), ends])
        order += [begin[index] + at for index in chosen for at in range(len(groups[index]))]
    return torch.cat(found)[torch.tensor(order, device=device).argsort()]


@torch.no_grad()
def shares_prefixes(trunk: nn.Module) -> bool:
    """Whether `last_states` is what whole sequences give: not with an encoder, a recurrent network, or no cache."""
    device = next(trunk.parameters()).device
    groups = [[[0, 1, 0], [0, 1, 1, 0]], [[1, 0]]]
    was_training = trunk.training
    trunk.eval()
    try:
        found = last_states(trunk, groups, device).float()
        rows = [trunk(input_ids=torch.tensor([row], device=device), use_cache=False)[0] for row in sum(groups, [])]
        expected = torch.stack([row[0, -1] for row in rows]).float()
        tolerance = (1e-3 if rows[0].dtype.itemsize > 2 else 0.1) * float(expected.std())
        return bool((found - expected).abs().max() <= tolerance)
    except Exception:  # what an architecture does not take shows as any type
        return False
    finally:
        trunk.train(was_training)
