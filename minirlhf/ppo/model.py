"""Policy, critic and reference, and the one pass through them that rollout and update share.

Whole sequences are padded on the right: under causal attention padding then reaches no real token, positions count
themselves, and no mask is needed. Only the hidden states that predict response tokens leave the trunk, packed into one
row of N real tokens; logits, values and losses never see a prompt position or a padded one.

Shapes: b sequences of a micro-batch, T = P + R - 1 (the last token predicts nothing), N real response tokens, H hidden
size, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from minirlhf.models.logprobs import Sequences, select_states, token_logprobs
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.runtime.memory import BatchSize

if TYPE_CHECKING:
    from peft import PeftModel


class ValueHead(nn.Linear):
    """A linear map from hidden states [..., H] to values [...], in float32 at least. It begins at 0 everywhere."""

    def __init__(self, hidden_size: int):
        super().__init__(hidden_size, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype)).squeeze(-1)


@dataclass
class Models:
    """The networks of a run. `critic_trunk` is None where the value head sits on the policy's trunk."""

    policy: TrunkAndHead
    value_head: ValueHead
    critic_trunk: nn.Module | None
    reference: TrunkAndHead
    adapter: "PeftModel | None"  # the policy as a peft model, with LoRA
    reference_is_base: bool  # the reference is the policy with its adapters switched off
    precision: str  # fp32 | bf16
    micro_batch: BatchSize  # most episodes in one pass
    rollout_batch: BatchSize  # most responses sampled at once
    # Layers that compute their activations again in the backward pass; may be none.
    checkpointed: list[GradientCheckpointingLayer]
    shares: bool  # a prompt of several episodes runs once for all of them

    def autocast(self) -> AbstractContextManager:
        """The arithmetic that `precision` asks for."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16)

    def named_trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that are trained: `policy.*`, then `critic.*`. Shared weights come once."""
        modules = [("policy", self.policy.model), ("critic.trunk", self.critic_trunk), ("critic.head", self.value_head)]
        for prefix, module in modules:
            for name, parameter in module.named_parameters() if module is not None else ():
                if parameter.requires_grad:
                    yield f"{prefix}.{name}", parameter

    def forward(self, batch: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities [N] of the response tokens, and values [N] of the states before them."""
        if self.critic_trunk is not None:
            return self.logprobs(batch, temperature), self.values(batch)
        with self.autocast():
            hidden = select_states(self.policy.trunk, batch)
            return token_logprobs(self.policy, hidden, batch.targets, temperature), self.value_head(hidden)

    def logprobs(self, batch: Sequences, temperature: float) -> Tensor:
        """Log-probabilities [N] of the response tokens under the policy."""
        with self.autocast():
            hidden = select_states(self.policy.trunk, batch)
            return token_logprobs(self.policy, hidden, batch.targets, temperature)

    def values(self, batch: Sequences) -> Tensor:
        """Values [N] by the separate critic, where there is one."""
        assert self.critic_trunk is not None
        with self.autocast():
            return self.value_head(select_states(self.critic_trunk, batch))

    @torch.no_grad()
    def reference_logprobs(self, batch: Sequences, temperature: float) -> Tensor:
        """Log-probabilities [N] of the response tokens under the reference."""
        base = self.adapter if self.reference_is_base else None
        disabled = nullcontext() if base is None else base.disable_adapter()
        with disabled, self.autocast():
            hidden = select_states(self.reference.trunk, batch)
            return token_logprobs(self.reference, hidden, batch.targets, temperature)


@contextmanager
def recomputing(layers: list[GradientCheckpointingLayer]) -> Iterator[None]:
    """Of these layers keep only the inputs for the backward pass.

    transformers' layers checkpoint themselves in training mode. Each of them alone is put into that mode, not what it
    is made of, so dropout stays off.
    """
    for layer in layers:
        # pyrefly: ignore[bad-argument-type]  # as transformers sets it; a Module may hold more than modules
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
