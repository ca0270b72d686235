"""A tokenizer that begins every text with BOS: there in every place where a model reads a prompt, and counted."""

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from minirlhf.baselines.dpo import encode_comparison
from minirlhf.data.clean import POSTS, Cleaner, Tally
from minirlhf.feedback.candidates import sample_candidates
from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.rewards.model import RewardModel
from minirlhf.sampling import summaries
from minirlhf.text.prompts import decode_response, encode_prompts, first_tokens
from minirlhf.training.sft import encode_example
from tests.models.test_brought import make_reward_model
from tests.ppo.conftest import EOS, count_w7, make_policy, make_tokenizer

BOS = EOS - 1  # the word w30, which no text here holds


@pytest.fixture
def llama():
    """A tokenizer that puts BOS first, as Llama's; its pad token is EOS."""
    core = make_tokenizer()._tokenizer
    core.post_processor = processors.TemplateProcessing(
        single="w30 $A", pair="w30 $A $B", special_tokens=[("w30", BOS)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="w30", eos_token="<eos>", pad_token="<eos>")


def test_what_a_tokenizer_puts_first(llama, small_bpe):
    assert first_tokens(llama) == [BOS]
    assert first_tokens(small_bpe) == [] and first_tokens(make_tokenizer()) == []
    both = processors.TemplateProcessing(single="w30 $A <eos>", special_tokens=[("w30", BOS), ("<eos>", EOS)])
    llama._tokenizer.post_processor = both  # EOS at the end as well: a prompt does not end
    assert encode_prompts(llama, ["w1 w2", "w3"]) == [[BOS, 1, 2], [BOS, 3]]


def test_every_prompt_begins_so(llama, monkeypatch):
    assert encode_example(llama, "w1 w2", "w3") == {"input_ids": [BOS, 1, 2, 3, EOS], "labels": [-100] * 3 + [3, EOS]}
    row = {"prompt": "w1 w2", "chosen": "w3", "rejected": "w4", "rejected_ended": False}
    encoded = encode_comparison(llama, row)
    assert encoded == {"prompt_ids": [BOS, 1, 2], "chosen_ids": [3, EOS], "rejected_ids": [4]}

    reward = RewardModel(make_reward_model(), llama, max_length=6)
    sequences = reward.encode(["w1 w2", "w1 w2 w3 w4"], ["w5", "w6 w7"], [True, False])
    assert [each["input_ids"] for each in sequences] == [
        [BOS, 1, 2, 5, EOS],
        [BOS, 2, 3, 4, 6, 7],
    ]  # too long: BOS stays

    asked = []
    generate = summaries.generate
    monkeypatch.setattr(
        summaries, "generate", lambda model, ids, **options: asked.append(ids) or generate(model, ids, **options)
    )
    summaries.sample(make_policy(), llama, ["w1 w2"], temperature=1.0, max_new_tokens=2, seed=1)
    assert asked == [[[BOS, 1, 2]]]


def test_ppo_reads_it_and_shows_the_reward_the_text(llama):
    seen = []

    def reward(prompts, responses):
        seen.extend(prompts)
        return count_w7(prompts, responses)

    config = PPOConfig(episodes=2, batch_size=2, max_new_tokens=2)
    trainer = PPOTrainer(config, make_policy(), llama, reward, ["w1 w2", [3, 4]], device="cpu")
    assert trainer.prompts.ids == [[BOS, 1, 2], [3, 4]]  # ids are taken as they are
    trainer.train()
    assert set(seen) == {"w1 w2", "w3 w4"}


def test_candidates_are_sampled_after_it(llama, monkeypatch):
    from minirlhf.feedback import candidates

    class Stop(Exception):
        pass

    def generate(policy, ids, **options):
        raise Stop(ids)

    monkeypatch.setattr(candidates, "generate", generate)
    params = type("Params", (), {"seed": 1, "data": type("D", (), {"max_response_tokens": 2})})
    params.collect = type("C", (), {"candidates": 1, "temperature": 1.0})
    with pytest.raises(Stop, match=rf"\[\[{BOS}, 1\]\]"):
        sample_candidates(None, llama, [{"prompt": "w1"}], params)


def test_it_counts_in_the_length_of_a_prompt(llama):
    rows = [{"prompt": "w1 w2 w3", "completion": "w4"}, {"prompt": "w6 w7", "completion": "w5"}]
    tally = Tally()
    kept = list(Cleaner(llama, POSTS, 3, 5).clean(rows, None, set(), set(), tally))
    assert tally.tokens["prompt"] == [3, 3] and tally.truncated == 1
    assert all(len(encode_prompts(llama, [row["prompt"]])[0]) == 3 for row in kept)


def test_a_response_shows_every_token_but_the_end(llama):
    """Else a policy could write special tokens, or embeddings that are no token, for free."""
    llama.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    [chat] = llama.convert_tokens_to_ids(["<|im_start|>"])
    assert decode_response(llama, [1, 2, EOS]) == "w1 w2"
    assert decode_response(llama, [1, chat, BOS, 2]) == "w1 <|im_start|> w30 w2"
    assert decode_response(llama, [EOS, 1]) == "<eos> w1"
    assert decode_response(llama, [1, 40, 41, 2]) == "w1\ufffd\ufffdw2"
    assert decode_response(llama, []) == ""


def test_ppo_rewards_what_it_wrote(llama):
    """A policy of more embeddings than there are tokens, biased towards a special one and one that is none."""
    policy = make_policy(vocab_size=40, tie_word_embeddings=False)
    llama.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})  # the token 32
    with torch.no_grad():
        policy.lm_head.weight.zero_()
        policy.transformer.ln_f.weight.zero_()
        policy.transformer.ln_f.bias.fill_(1.0)
        policy.lm_head.weight[[32, 39]] = 1.0
    seen = []

    def reward(prompts, responses):
        seen.extend(responses)
        return [0.0] * len(responses)

    config = PPOConfig(episodes=8, batch_size=8, max_new_tokens=4)
    PPOTrainer(config, policy, llama, reward, ["w1"], device="cpu").rollout()
    assert all(set(text.replace("<|im_start|>", "").replace(" ", "")) <= {"\ufffd"} and text for text in seen)
    assert any("<|im_start|>" in text for text in seen) and any("\ufffd" in text for text in seen)
