"""Faster kernels for the same functions, put into a model in place. They matter on a CPU.

- Linear layers by `minirlhf.models.products`.
- With portable arithmetic, causal attention by `minirlhf.models.attention`.
- GPT-2's `gelu_new` by PyTorch's fused kernel, which also keeps one tensor for the backward pass in place of six.

Weights, their names and the config stay what they are, so what is saved is unchanged.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

from minirlhf.models.attention import causal_attention
from minirlhf.models.products import linear
from minirlhf.runtime.arithmetic import is_portable


def use_fast_kernels(model: nn.Module) -> None:
    """Put the faster kernels into a model, in place; a second call changes nothing."""
    for module in list(model.modules()):
        if type(module) in FAST:  # the very class: a subclass may do something else
            module.__class__ = FAST[type(module)]
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def attention(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options):
    """What transformers calls for "sdpa": queries [B, h, T, d]; returns [B, T, h, d] and None."""
    whole = attention_mask is None and query.shape[2] == key.shape[2] > 1
    causal = getattr(module, "is_causal", False) and options.get("is_causal") is not False
    plain = causal and not options.get("dropout") and options.get("position_bias") is None
    if not (whole and plain and query.device.type == "cpu" and query.dtype == torch.float32):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = query.shape[1] // key.shape[1]
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_attention(query * scaling, repeat_kv(key, groups), repeat_kv(value, groups)).transpose(1, 2), None


if is_portable():
    AttentionInterface.register("sdpa", attention)


class FastLinear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


class FastConv1D(Conv1D):
    """GPT-2's linear layer, whose weight is [in, out], by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight.t(), self.bias)


FAST = {nn.Linear: FastLinear, Conv1D: FastConv1D}
