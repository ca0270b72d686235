import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minirlhf.sampling.summaries import log_probabilities, sample, written


class Letters:
    """A tokenizer of single letters; id 0 is EOS and padding."""

    eos_token_id = pad_token_id = 0
    bos_token_id = unk_token_id = sep_token_id = cls_token_id = None
    all_special_ids = [0]

    def __call__(self, texts, **options):
        return {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]}

    def __len__(self):
        return 8

    def batch_decode(self, rows, **options):
        return [self.decode(ids) for ids in rows]

    def decode(self, ids, **options):
        return "".join(chr(96 + i) for i in ids if i)


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


PROMPTS = ["abc", "g", "defgabcd"]


def draw(policy, **options):
    return sample(policy, Letters(), PROMPTS, max_new_tokens=6, seed=3, **{"temperature": 0.7, **options})


def test_sampled_log_probabilities_are_those_of_scoring(policy):
    drawn = draw(policy)
    prompt_ids = Letters()(PROMPTS)["input_ids"]
    for batch_size in (1, 64):
        scored = log_probabilities(policy, prompt_ids, drawn.token_ids, 0.7, batch_size)
        assert scored == pytest.approx(drawn.logprobs, abs=1e-4)


def test_scoring_one_response_by_hand(policy):
    with torch.no_grad():
        logits = policy(torch.tensor([[1, 2, 3, 4, 0]])).logits[0, 1:4].log_softmax(-1)
    by_hand = logits[0, 3] + logits[1, 4] + logits[2, 0]
    assert log_probabilities(policy, [[1, 2]], [[3, 4, 0]], 1.0) == pytest.approx([float(by_hand)], abs=1e-5)


def test_lengths_count_the_end_token_and_texts_do_not_show_it(policy):
    drawn = draw(policy, samples_per_prompt=8)
    assert len(drawn.texts) == 24 and 0 < drawn.ended.sum() < 24
    assert np.array_equal(drawn.lengths, [len(text) for text in drawn.texts] + drawn.ended)


def test_the_authors_summaries_end(policy):
    summaries = written(Letters(), ["ab", "c"])
    assert summaries.token_ids == [[1, 2, 0], [3, 0]] and summaries.ended.all() and summaries.logprobs is None


def test_batching_and_repetition_change_no_summary(policy):
    assert draw(policy).texts == draw(policy, batch_size=1).texts
    assert draw(policy, temperature=0.0).texts == draw(policy, temperature=0.0, batch_size=1).texts
