"""A causal language model seen as a trunk and a head.

PPO needs hidden states (for values) and logits of a few positions only. Every transformers causal LM is a trunk
(`base_model`: ids to hidden states) and a head (`get_output_embeddings()`: hidden states to logits), so both are used
apart: the head, the most expensive matrix of a small model, is applied to response positions and to no others.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from minirlhf.runtime.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it has more digits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class TrunkAndHead:
    """The two halves of a causal LM, sharing its parameters.

    Raises UserError if the head on the trunk's hidden states does not give the model's own logits (an architecture
    that scales or caps them afterwards), if a token's logits depend on later tokens (an encoder), or on padding before
    them (a recurrent network, which the sampler's cache does not suit): better refused than trained on another
    distribution than is sampled.
    """

    def __init__(self, model: nn.Module):
        # A peft model injects its layers into the model it wraps: use that one.
        self.model: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.trunk: nn.Module = self.model.base_model
        self.head: nn.Module = self.model.get_output_embeddings()
        if self.trunk is self.model or self.head is None:
            raise UserError(f"{self._name}: not a causal language model with a head")
        was_training = self.model.training
        self.model.eval()
        self._check()
        self.model.train(was_training)

    @property
    def _name(self) -> str:
        return f"{self.model.name_or_path or 'policy'} ({type(self.model).__name__})"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Logits a position."""
        return self.head.weight.shape[0]

    @property
    def embeddings(self) -> int:
        """Tokens that have an embedding."""
        return self.model.get_input_embeddings().num_embeddings

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the model has positions for, or None if unlimited."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, **kwargs) -> Tensor:
        """Hidden states [B, T, H] of `input_ids` [B, T]; keyword arguments go to the trunk."""
        return self.trunk(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V], in float32 at least, of hidden states [..., H]."""
        return at_least_float32(self.head(hidden))

    @torch.no_grad()
    def _check(self) -> None:
        ids = torch.tensor([[0, 0], [0, 1]], device=self.device)
        ones = torch.ones_like(ids)
        whole = at_least_float32(self.model(input_ids=ids, attention_mask=ones).logits)
        parts = self.logits(self.hidden(ids, ones, use_cache=False))
        if not torch.allclose(whole, parts, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise UserError(f"{self._name}: changes its logits after the head; not supported")
        if (whole[0, 0] - whole[1, 0]).abs().max() > 1e-3 * whole[0, 0].std():
            raise UserError(f"{self._name}: not a causal language model: its first logits depend on the second token")
        self._check_sampling(whole[1])

    def _check_sampling(self, expected: Tensor) -> None:
        """Raise UserError unless tokens 0 and 1 get `expected` logits [2, V] as in sampling: padded, one by one."""
        ids, mask = (torch.tensor(rows, device=self.device) for rows in ([[0, 0, 1]], [[False, True, True]]))
        steps, cache = ((0, 2, [[0, 0]]), (2, 3, [[1]])), DynamicCache()
        tolerance = (2e-2 if self.head.weight.dtype.itemsize > 2 else 0.5) * expected.std()
        for first, end, positions in steps:
            options = {"position_ids": torch.tensor(positions, device=self.device), "past_key_values": cache}
            try:
                hidden = self.hidden(ids[:, first:end], mask[:, :end], **options, use_cache=True)[:, -1]
            except Exception as error:  # what an architecture does not take shows as any type
                raise UserError(f"{self._name}: cannot be sampled from with a cache ({first_line(error)})") from error
            if (self.logits(hidden)[0] - expected[end - 2]).abs().max() > tolerance:
                raise UserError(f"{self._name}: not supported: its logits depend on padding before the first token")


@torch.no_grad()
def width(trunk: nn.Module) -> int:
    """Of a trunk's last hidden states: not `hidden_size` where it projects them, as OPT-350m's does."""
    one = torch.zeros(1, 1, dtype=torch.long, device=next(trunk.parameters()).device)
    return trunk(input_ids=one, attention_mask=torch.ones_like(one), use_cache=False).last_hidden_state.shape[-1]


def checkpointed_layers(models: Sequence[nn.Module]) -> list[GradientCheckpointingLayer]:
    """The layers that can compute their activations again in the backward pass."""
    modules = [module for model in models for module in model.modules()]
    layers = [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"ppo.gradient_checkpointing: {type(models[0]).__name__} cannot; set it to false")
    return layers


def check_fits(parts: TrunkAndHead, longest_prompt: int, max_new_tokens: int) -> None:
    """Raise UserError if prompt and response together exceed the model's positions."""
    limit = parts.max_positions
    if limit is not None and longest_prompt + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest_prompt} tokens and a response of {max_new_tokens} exceed the {limit} positions "
            f"of the model: shorten the prompts or max_new_tokens"
        )
