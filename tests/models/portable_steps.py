"""Two steps of Adam on a tiny transformer of this project's kernels, in portable arithmetic; prints a hash of it all.

`test_portable.py` runs this on emulated processors, on which importing transformers would take many minutes.
"""
# ruff: noqa: E402

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from minirlhf.runtime import arithmetic

if __name__ == "__main__":  # before the imports that follow
    arithmetic.apply("portable")

import numpy as np
import torch
from torch import nn

from minirlhf.models.attention import causal_attention
from minirlhf.models.products import linear

HEADS, WIDTH, TOKENS, VOCABULARY = 4, 64, 37, 101


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        sizes = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))
        self.weights = nn.ParameterList(0.1 * torch.randn(size) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, hidden):
        states = linear(self.norms[0](hidden), self.weights[0], None).view(*hidden.shape[:2], 3 * HEADS, -1)
        query, key, value = states.transpose(1, 2).chunk(3, dim=1)
        mixed = causal_attention(0.25 * query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + linear(mixed, self.weights[1], self.bias)
        inner = nn.functional.gelu(linear(self.norms[1](hidden), self.weights[2], None), approximate="tanh")
        return hidden + linear(inner, self.weights[3], None)


def main() -> None:
    assert arithmetic.is_portable(), "this processor has no AVX2"
    torch.manual_seed(0)
    torch.set_num_threads(2)
    embedding, layers = nn.Embedding(VOCABULARY, WIDTH), nn.Sequential(Layer(), Layer())
    parameters = [*embedding.parameters(), *layers.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2, fused=True)
    ids = torch.randint(VOCABULARY, (3, TOKENS + 1))
    for _ in range(2):
        optimizer.zero_grad()
        logits = linear(layers(embedding(ids[:, :-1])), embedding.weight, None)
        nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    step = nn.functional.scaled_dot_product_attention(*(torch.randn(3, HEADS, n, 16) for n in (1, 29, 29)))  # decoding
    digest = hashlib.sha256()
    for tensor in (*parameters, logits, step):
        digest.update(tensor.detach().numpy().tobytes())
    numbers = np.random.default_rng(0).normal(size=1000)
    for array in (
        np.exp(numbers),
        np.sin(numbers),
        np.log(numbers**2),
        numbers.reshape(20, 50) @ numbers.reshape(50, 20),
    ):
        digest.update(array.tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
