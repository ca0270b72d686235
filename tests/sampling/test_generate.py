import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from minirlhf.runtime.errors import UserError
from minirlhf.sampling import generate as sampler
from minirlhf.sampling.draw import episode_seeds, sample_tokens
from minirlhf.sampling.generate import generate, pad_left
from minirlhf.sampling.static import can_be_static, decode_static

VOCABULARY, EOS = 64, 5
SMALL = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": EOS}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def make(kind: str):
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, **SMALL))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **LAYERS, **SMALL))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(num_key_value_heads=2, sliding_window=6, **LAYERS, **SMALL))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**LAYERS, **SMALL))
    return model.eval()


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 20, (12,), generator=generator).tolist()
    return [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def sampled(model, prompts, **changes):
    count = len(prompts) * changes.get("samples_per_prompt", 1)
    arguments = dict(max_new_tokens=16, temperature=0.7, eos_token_id=EOS, pad_token_id=EOS)
    arguments["seeds"] = episode_seeds(3, 0, count)
    return generate(model, prompts, **{**arguments, **changes})


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "mistral"])
def test_logprobs_are_those_of_the_whole_sequence(kind, prompts):
    model = make(kind)
    result = sampled(model, prompts)
    for prompt, response, row in zip(prompts, result.token_ids(), result.logprobs, strict=True):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(row[: len(response)], expected, rtol=0, atol=1e-5)
        assert row[len(response) :].eq(0).all()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "mistral"])
def test_greedy_agrees_with_transformers(kind, prompts):
    model = make(kind)
    result = sampled(model, prompts, temperature=0, seeds=None)
    for prompt, response in zip(prompts, result.token_ids(), strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=EOS
        )
        assert response == expected[0, len(prompt) :].tolist()


def test_batching_changes_no_sample(prompts):
    model = make("gpt2")
    whole = sampled(model, prompts, samples_per_prompt=3)
    split = sampled(model, prompts, samples_per_prompt=3, batch_size=4)
    assert whole.token_ids() == split.token_ids()
    assert whole.ended.tolist() == split.ended.tolist()
    # ... nor does asking for some of the episodes alone.
    some = sampled(model, prompts[4:6], seeds=episode_seeds(3, 12, 6), samples_per_prompt=3)
    assert some.token_ids() == whole.token_ids()[12:18]


def test_ends_at_eos_and_only_there(prompts):
    # The padding id is EOS itself, and prompts contain it: ends must not be read off the ids.
    result = sampled(make("gpt2"), [[EOS, *prompt] for prompt in prompts], samples_per_prompt=4)
    assert 0 < result.ended.float().mean() < 1
    for response, ended in zip(result.token_ids(), result.ended.tolist(), strict=True):
        assert EOS not in response[:-1]
        assert (response[-1] == EOS) == ended
        assert ended or len(response) == 16


def test_the_checkpoints_own_generation_settings_are_ignored(prompts):
    model = make("gpt2")
    plain = sampled(model, prompts).token_ids()
    model.generation_config.top_k = 1
    model.generation_config.min_new_tokens = 16
    model.generation_config.repetition_penalty = 5.0
    assert sampled(model, prompts).token_ids() == plain


def test_frequencies_follow_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0]])
    uniforms = (torch.arange(10_000) + 0.5) / 10_000
    tokens, logprobs = sample_tokens(logits.expand(10_000, 4), 0.5, uniforms)
    expected = torch.softmax(logits[0] / 0.5, -1)
    torch.testing.assert_close(tokens.bincount(minlength=4) / 10_000, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(logprobs, expected.log()[tokens])


def test_extreme_uniforms_never_select_an_impossible_token():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, 4)
    tokens, _ = sample_tokens(logits, 1.0, torch.tensor([0.0, 1.0]))
    assert tokens.tolist() == [1, 2]


def test_values_are_of_the_state_before_each_token(prompts):
    model = make("gpt2")
    weight = torch.randn(32)
    result = sampled(model, prompts, value_head=lambda hidden: hidden @ weight)
    response = result.token_ids()[0]
    hidden = model.transformer(torch.tensor([prompts[0] + response])).last_hidden_state[0]
    expected = hidden[len(prompts[0]) - 1 : -1] @ weight
    torch.testing.assert_close(result.values[0, : len(response)], expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_off_and_the_mode_restored(prompts):
    model = make("gpt2").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    assert sampled(model, prompts).token_ids() == sampled(make("gpt2"), prompts).token_ids()
    assert model.training


def test_episode_seeds_differ_and_continue():
    seeds = episode_seeds(0, 0, 1000)
    assert len(set(seeds)) == 1000
    assert seeds[10:20] == episode_seeds(0, 10, 10)
    assert set(seeds).isdisjoint(episode_seeds(1, 0, 1000))


def test_pad_left_example():
    ids, mask, positions = pad_left([[5, 6, 7], [8]], "cpu")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[True, True, True], [False, False, True]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize(
    "prompts, changes, message",
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1] * 60], {}, "64 positions"),
        ([[1]], {"seeds": [1, 2]}, "needs 1 seeds, not 2"),
        ([[1]], {"temperature": -1.0}, "temperature is -1"),
    ],
)
def test_refusals(prompts, changes, message):
    with pytest.raises(UserError, match=message):
        sampled(make("gpt2"), prompts, **changes)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("temperature", [0.7, 0])
def test_a_step_of_fixed_shapes_samples_the_same(kind, temperature, prompts, monkeypatch):
    model = make(kind)
    values = torch.nn.Linear(32, 1)
    options = dict(temperature=temperature, samples_per_prompt=2, value_head=lambda hidden: values(hidden)[:, 0])
    expected = sampled(model, prompts, **options)
    monkeypatch.setattr(sampler, "_decode", decode_static)
    found = sampled(model, prompts, **options)
    assert temperature == 0 or (expected.ended.any() and not expected.ended.all())
    for name in ("response_ids", "response_length", "ended"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for name in ("logprobs", "values"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5)


def test_a_step_of_fixed_shapes_ends_when_all_rows_have(prompts, monkeypatch):
    model = make("gpt2")
    steps, own = [], sampler.TrunkAndHead.logits
    monkeypatch.setattr(sampler.TrunkAndHead, "logits", lambda *args: steps.append(1) or own(*args))
    monkeypatch.setattr(sampler, "_decode", decode_static)
    parts = sampler.TrunkAndHead(model)
    row = int(sampled(parts, prompts, max_new_tokens=40).response_length.argmin())
    steps.clear()
    seeds = episode_seeds(3, row, 1)
    length = int(sampled(parts, [prompts[row]], max_new_tokens=40, seeds=seeds).response_length)
    assert len(steps) == -(-length // 8) * 8 < 40


def test_layers_that_forget_take_no_step_of_fixed_shapes():
    assert [can_be_static(sampler.TrunkAndHead(make(kind))) for kind in ("gpt2", "llama", "mistral")] == [1, 1, 0]
