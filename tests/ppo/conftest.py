"""A policy, a tokenizer and prompts small enough that an update takes milliseconds."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARY = 32
EOS = VOCABULARY - 1


def make_tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Words w0, w1, ... and, last, <eos>; the padding token is EOS, as with GPT-2."""
    words = [f"w{index}" for index in range(vocabulary - 1)] + ["<eos>"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def make_policy(seed: int = 0, **changes) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = dict(n_layer=2, n_embd=32, n_head=2, vocab_size=VOCABULARY, n_positions=64, initializer_range=0.1)
    return GPT2LMHeadModel(GPT2Config(**{**config, "bos_token_id": EOS, "eos_token_id": EOS, **changes})).eval()


def count_w7(prompts: list[str], responses: list[str]) -> list[float]:
    """A rule as the reward: the number of w7 in the response."""
    return [float(response.split().count("w7")) for response in responses]


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def policy():
    return make_policy()


@pytest.fixture(scope="session")
def prompts():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 12, (20,), generator=generator).tolist()
    return [
        " ".join(f"w{word}" for word in torch.randint(0, EOS, (length,), generator=generator).tolist())
        for length in lengths
    ]
