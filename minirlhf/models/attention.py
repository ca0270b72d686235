"""Causal attention whose products are OpenBLAS's, for portable arithmetic (minirlhf/runtime/arithmetic.py).

PyTorch leaves attention's small products to MKL, which would have to be COMPATIBLE to agree on every processor and then
is slow. NumPy's OpenBLAS takes the same AVX2 kernels everywhere. In blocks of queries, as in flash attention: what is
alive at a time fits a cache, and keys that come after a block are left out (Dao et al. 2022, arXiv 2205.14135).

Shapes: B sequences, h heads, T tokens, d size of a head.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries at a time


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value under a causal mask: [B, h, T, d] of three of that shape, in fp32 on the CPU."""
    return _CausalAttention.apply(query, key, value)


class _CausalAttention(torch.autograd.Function):
    """`causal_attention`; the backward pass makes the softmax anew."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        out = _like(query)
        for b, rows, seen, weights in _blocks(query.detach(), key.detach()):
            _product(weights, value.detach()[b, :, :seen], out[b, :, rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = _like(query), _like(key).zero_(), _like(value).zero_()
        for b, rows, seen, weights in _blocks(query, key):
            of_out = gradient[b, :, rows]
            of_value[b, :, :seen] += _product(weights.transpose(1, 2), of_out)
            of_weights = _product(of_out, value[b, :, :seen].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.float32)
            _product(of_scores, key[b, :, :seen], of_query[b, :, rows])
            of_key[b, :, :seen] += _product(of_scores.transpose(1, 2), query[b, :, rows])
        return of_query, of_key, of_value


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice, int, Tensor]]:
    """Sequence, rows of queries, how many keys they see at most, and their weights [h, rows, keys]."""
    tokens = query.shape[2]
    hidden = torch.full((BLOCK, BLOCK), float("-inf")).triu(1)
    for b in range(query.shape[0]):
        for first in range(0, tokens, BLOCK):
            seen = min(first + BLOCK, tokens)
            scores = _product(query[b, :, first:seen], key[b, :, :seen].transpose(1, 2))
            scores[:, :, first:] += hidden[: seen - first, : seen - first]
            yield b, slice(first, seen), seen, torch.softmax(scores, -1)


def _product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left [h, n, k] times right [h, k, m]."""
    out = left.new_empty(left.shape[0], left.shape[1], right.shape[2]) if out is None else out
    np.matmul(left.numpy(), right.numpy(), out=out.numpy())
    return out


def _like(states: Tensor) -> Tensor:
    """An empty [B, h, T, d] laid out as [B, T, h, d], which needs no copy before or after."""
    batch, heads, tokens, size = states.shape
    return states.new_empty(batch, tokens, heads, size).transpose(1, 2)
