"""Faster kernels for the same functions, put into a model in place. They matter on a CPU.

- Linear layers in fp32 by oneDNN, where that is faster than MKL, which PyTorch takes: always on an AMD processor, half
  of which MKL leaves unused; on others for a few rows times a vocabulary, as in decoding.
  `python benchmarks/linear.py` compares the two; docs/speed.md has its tables.
- GPT-2's `gelu_new` by PyTorch's fused kernel, which also keeps one tensor for the backward pass in place of six.

Weights, their names and the config stay what they are, so what is saved is unchanged.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from minirlhf.runtime.arithmetic import product_library

# By the processor, and fixed at import, as PyTorch's own choices are.
PRODUCTS = product_library()
# A product that is oneDNN's on any processor: at most so many rows, at least so many outputs, forward alone.
FEW_ROWS, VOCABULARY = 32, 8192

# What torch.compile puts in the place of a linear layer on a CPU. Absent from builds without oneDNN.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def use_fast_kernels(model: nn.Module) -> None:
    """Put the faster kernels into a model, in place; a second call changes nothing."""
    for module in list(model.modules()):
        if type(module) in FAST:  # the very class: a subclass may do something else
            module.__class__ = FAST[type(module)]
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`inputs` [..., in] times `weight` [out, in] transposed, plus `bias` [out]: `nn.functional.linear`."""
    if not _is_onednns(inputs, weight):
        return nn.functional.linear(inputs, weight, bias)
    product = _OneDNNLinear.apply(inputs.reshape(-1, inputs.shape[-1]), weight, bias)
    return product.view(*inputs.shape[:-1], weight.shape[0])


def _is_onednns(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to make a product: the rule of this processor."""
    if _ONEDNN_LINEAR is None or inputs.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if inputs.numel() == 0 or not inputs.dtype == weight.dtype == torch.float32:
        return False
    few = inputs.numel() // inputs.shape[-1] <= FEW_ROWS and weight.shape[0] >= VOCABULARY and weight.is_contiguous()
    return PRODUCTS == "onednn" or (few and not torch.is_grad_enabled())


class _OneDNNLinear(torch.autograd.Function):
    """`linear` of [N, in] by oneDNN; all three matrix products of it and its gradient."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_inputs else None,
            _product(gradient.t(), inputs.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left [n, k] times right [m, k] transposed."""
    return _ONEDNN_LINEAR(left, right, bias, "none", [], "")


class FastLinear(nn.Linear):
    """nn.Linear by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


class FastConv1D(Conv1D):
    """GPT-2's linear layer, whose weight is [in, out], by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight.t(), self.bias)


FAST = {nn.Linear: FastLinear, Conv1D: FastConv1D}
