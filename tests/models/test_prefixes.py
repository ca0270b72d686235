"""What sequences share runs once, and nothing comes out otherwise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM

from minirlhf.models.logprobs import Sequences, select_states
from minirlhf.models.prefixes import last_states, shares_prefixes
from minirlhf.rewards.model import raw_scores

CONFIGS = {
    "gpt2": GPT2Config(vocab_size=8, n_positions=32, n_embd=8, n_layer=2, n_head=2, num_labels=1, pad_token_id=0),
    "llama": LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    ),
}
WORDS = st.lists(st.integers(0, 7), min_size=1, max_size=6)
GROUPS = st.lists(st.tuples(st.lists(st.integers(0, 7), max_size=9), st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=4)


def decoder(kind, make=None):
    torch.manual_seed(0)
    make = make or {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM}[kind]
    return make(CONFIGS[kind]).eval()


def alone(trunk, row):
    return trunk(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@given(drawn=GROUPS)
@settings(max_examples=20)
def test_states_and_gradients_are_those_of_whole_sequences(kind, drawn):
    trunk = decoder(kind).base_model
    groups = [[start + rest for rest in rests] for start, rests in drawn]
    weights = [parameter for parameter in trunk.parameters()]
    found = last_states(trunk, groups, "cpu")
    expected = torch.stack([alone(trunk, row)[-1] for group in groups for row in group])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    one, other = (torch.autograd.grad((states * direction).sum(), weights, allow_unused=True) for states in (found, expected))
    for left, right in zip(one, other, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@given(drawn=st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4))
@settings(max_examples=20)
def test_responses_to_one_prompt_are_as_without_sharing(drawn):
    trunk = decoder("gpt2").base_model
    prompts = [prompt for prompt, responses in drawn for _ in responses]
    responses = [response for _, each in drawn for response in each]
    shared, whole = (Sequences.pack(prompts, responses, "cpu", share=share) for share in (True, False))
    assert torch.equal(shared.targets, whole.targets) and whole.prefixes is None
    torch.testing.assert_close(select_states(trunk, shared), select_states(trunk, whole), atol=1e-5, rtol=1e-5)


def test_who_shares():
    assert shares_prefixes(decoder("gpt2").base_model) and shares_prefixes(decoder("llama").base_model)
    encoder = BertModel(BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8))
    assert not shares_prefixes(encoder.eval())


def test_fewer_tokens_run(monkeypatch):
    """Three summaries of a post of six tokens: six and the rest, not three times all."""
    model, seen = decoder("gpt2", GPT2ForSequenceClassification), []
    rows = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 0, 7], [1, 2, 3, 4, 5, 6, 0, 0]]
    ids = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    inputs = {"input_ids": ids, "lengths": torch.tensor([7, 8, 8])}
    expected = raw_scores(model, **inputs)
    model.base_model.wte.register_forward_pre_hook(lambda module, given: seen.append(given[0].numel()))
    found = raw_scores(model, **inputs, groups=torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert sum(seen) == 6 + 3 * 2
