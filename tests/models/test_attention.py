import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from minirlhf.models import attention
from minirlhf.models.attention import causal_attention


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
def test_value_and_gradient_are_those_of_softmax_in_blocks_of_any_length(tokens, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 4)
    torch.manual_seed(0)
    leaves = [torch.randn(2, 3, tokens, 5, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(2, 3, tokens, 5)
    ours = causal_attention(*leaves)
    exact = scaled_dot_product_attention(*(leaf.double() for leaf in leaves), is_causal=True, scale=1.0)
    torch.testing.assert_close(ours, exact.float())
    expected = torch.autograd.grad(exact, leaves, upstream.double())
    for gradient, exactly in zip(torch.autograd.grad(ours, leaves, upstream), expected, strict=True):
        torch.testing.assert_close(gradient, exactly)


def test_the_first_token_sees_itself_alone():
    value = torch.tensor([[[[1.0], [3.0]]]])
    out = causal_attention(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1), value)
    assert out.flatten().tolist() == [1.0, 2.0]
