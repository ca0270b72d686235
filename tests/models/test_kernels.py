import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minirlhf.models import kernels
from minirlhf.models.kernels import FastConv1D, FastLinear, use_fast_kernels

SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
LLAMA = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, **SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=40, **LLAMA)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_function_gradient_weights_and_config(name):
    torch.manual_seed(0)
    plain = MODELS[name]().eval()
    fast, ids = copy.deepcopy(plain), torch.randint(40, (3, 11))
    config = plain.config.to_dict()
    use_fast_kernels(fast)
    use_fast_kernels(fast)
    kinds = {type(module) for module in fast.modules()}
    assert kinds & {FastLinear, FastConv1D} and not kinds & {nn.Linear, kernels.Conv1D}
    assert list(fast.state_dict()) == list(plain.state_dict()) and fast.config.to_dict() == config
    for model in (plain, fast):
        model(ids, labels=ids).loss.backward()
    torch.testing.assert_close(fast(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-6)
    for theirs, ours in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_attention_for_portable_arithmetic_is_attention(name, monkeypatch):
    torch.manual_seed(0)
    model, ids = MODELS[name]().eval(), torch.randint(40, (3, 11))
    if name == "llama":
        model.config.num_key_value_heads = 1
        model = LlamaForCausalLM(model.config).eval()
    made, own = [], kernels.causal_attention
    monkeypatch.setattr(kernels, "causal_attention", lambda *args: made.append(1) or own(*args))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # padded on the left: that takes a mask, and is left to PyTorch

    def found() -> list[torch.Tensor]:
        model.zero_grad()
        out = model(ids, attention_mask=torch.ones_like(ids), labels=ids)
        out.loss.backward()
        with torch.no_grad():
            padded = model(ids, attention_mask=mask).logits
        return [out.logits, padded, *(parameter.grad for parameter in model.parameters())]

    expected = found()
    assert not made
    monkeypatch.setitem(kernels.AttentionInterface._global_mapping, "sdpa", kernels.attention)
    for theirs, ours in zip(expected, found(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert len(made) == model.config.num_hidden_layers
