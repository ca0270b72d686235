import pytest
import torch
from torch import nn

from minirlhf.models import products as rule
from minirlhf.models.products import linear


@pytest.mark.skipif(rule._ONEDNN_LINEAR is None, reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (1, 5), (0, 5)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("products", ["onednn", "pytorch"])
def test_linear_is_the_product_to_fp32_rounding(shape, transposed, with_bias, products, monkeypatch):
    monkeypatch.setattr(rule, "PRODUCTS", products)
    torch.manual_seed(0)
    inputs, bias = torch.randn(shape, requires_grad=True), torch.randn(7, requires_grad=True) if with_bias else None
    stored = torch.randn((5, 7) if transposed else (7, 5), requires_grad=True)
    weight = stored.t() if transposed else stored
    out = linear(inputs, weight, bias)
    exact = nn.functional.linear(inputs.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(out, exact.float())
    leaves = [leaf for leaf in (inputs, stored, bias) if leaf is not None]
    upstream = torch.randn_like(out)
    ours = torch.autograd.grad(out, leaves, upstream)
    theirs = torch.autograd.grad(exact, leaves, upstream.double())
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_only_needed_products_are_made(monkeypatch):
    made = []
    monkeypatch.setattr(rule, "PRODUCTS", "onednn")
    monkeypatch.setattr(rule, "_ONEDNN_LINEAR", lambda left, right, *_: made.append(left.shape) or left @ right.t())
    weight = torch.randn(7, 5)  # frozen: adapters are trained beside it
    linear(torch.randn(3, 5, requires_grad=True), weight, None).sum().backward()
    assert made == [(3, 5), (3, 7)]


def test_the_rule_by_processor_and_shape(monkeypatch):
    made = []
    fake = lambda left, right, *_: made.append((len(left), len(right))) or left @ right.t()  # noqa: E731
    monkeypatch.setattr(rule, "_ONEDNN_LINEAR", fake)
    head, layer = torch.randn(9000, 4), torch.randn(8, 4)
    for products, expected in (("onednn", [(3, 9000), (50, 9000), (3, 8)]), ("pytorch", [(3, 9000)])):
        monkeypatch.setattr(rule, "PRODUCTS", products)
        made.clear()
        with torch.no_grad():
            for rows, weight in ((3, head), (50, head), (3, layer)):
                linear(torch.randn(rows, 4), weight, None)
        assert made == expected
    made.clear()
    linear(torch.randn(3, 4, requires_grad=True), head, None).sum().backward()
    assert made == []  # the gradient is PyTorch's, so the product is


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_take_pytorchs_own_way(dtype, monkeypatch):
    monkeypatch.setattr(rule, "_ONEDNN_LINEAR", None)
    inputs, weight = torch.ones(2, 5, dtype=dtype), torch.ones(7, 5, dtype=dtype)
    assert linear(inputs, weight, None).dtype == dtype


def test_autocast_rules():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.ones(2, 5), torch.ones(7, 5), None).dtype == torch.bfloat16
