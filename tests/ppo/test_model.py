import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from minirlhf.models import logprobs as logprobs_module
from minirlhf.models.logprobs import Sequences, token_logprobs
from minirlhf.models.passes import longest_first
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.runtime.errors import UserError
from tests.ppo.conftest import VOCABULARY, make_policy

PROMPTS, RESPONSES = [[1, 2, 3, 4, 5], [6], [7, 8]], [[9, 10], [11, 12, 13], [14]]
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=VOCABULARY)


def make(kind):
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, initializer_range=0.2, **SMALL)).eval()
    if kind == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(initializer_range=0.2, **SMALL)).eval()
    return make_policy()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_logprobs_of_a_batch_are_those_of_each_sequence_alone(kind):
    model = make(kind)
    parts, batch = TrunkAndHead(model), Sequences.pack(PROMPTS, RESPONSES, "cpu")
    packed = token_logprobs(parts, logprobs_module.select_states(parts.trunk, batch), batch.targets, 0.7)
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected.append(torch.log_softmax(logits, -1).gather(-1, torch.tensor(response)[:, None])[:, 0])
    torch.testing.assert_close(packed, torch.cat(expected), rtol=0, atol=1e-5)


def test_work_in_pieces_gives_the_same_values_and_gradients(monkeypatch):
    results = []
    for limit in (2**26, 2 * VOCABULARY):
        monkeypatch.setattr(logprobs_module, "LOGITS_AT_ONCE", limit)
        parts, batch = TrunkAndHead(make_policy()), Sequences.pack(PROMPTS, RESPONSES, "cpu")
        logprobs = token_logprobs(parts, logprobs_module.select_states(parts.trunk, batch), batch.targets, 0.7)
        logprobs.sum().backward()
        results.append((logprobs, parts.model.lm_head.weight.grad))
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieces)


def test_the_head_sees_response_positions_only():
    parts, seen = TrunkAndHead(make_policy()), []
    parts.head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    batch = Sequences.pack(PROMPTS, RESPONSES, "cpu")
    token_logprobs(parts, logprobs_module.select_states(parts.trunk, batch), batch.targets, 1.0)
    assert seen == [(6, VOCABULARY)]


def test_neighbours_are_of_similar_length_and_the_longest_come_first():
    assert longest_first([5, 9, 6, 2, 9]) == [1, 4, 2, 0, 3]


def test_a_model_that_changes_its_logits_after_the_head_is_refused():
    class Capped(type(make_policy())):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = 30 * torch.tanh(output.logits)
            return output

    model = make_policy()
    model.__class__ = Capped
    with pytest.raises(UserError, match="changes its logits after the head"):
        TrunkAndHead(model)
