"""The product of a linear layer in fp32, by whoever is fastest on this processor.

oneDNN is faster than MKL, which PyTorch takes, always on an AMD processor, of which MKL leaves half unused; on others
for a few rows times a vocabulary, as in decoding. `minirlhf bench` compares the two.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minirlhf.runtime.arithmetic import product_library

# By the processor, and fixed at import, as PyTorch's own choices are.
PRODUCTS = product_library()
# A product that is oneDNN's on any processor: at most so many rows, at least so many outputs, forward alone.
FEW_ROWS, VOCABULARY = 32, 8192

# What torch.compile puts in the place of a linear layer on a CPU. Absent from builds without oneDNN.
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


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
