"""Fixtures that several parts of the tests share."""

import copy
import os

import hypothesis
import pytest

# `make test` tries a few examples of each property, `make soak` thousands.
SOAK = os.environ.get("MINIRLHF_SOAK") == "1"
hypothesis.settings.register_profile("test", max_examples=50, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=10_000, deadline=None)
hypothesis.settings.load_profile("soak" if SOAK else "test")

TRAIN = {
    "steps": 4,
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate": 5e-4,
    "warmup_steps": 1,
    "log_every": 1,
    "eval_every": 2,
    "gradient_checkpointing": False,
}
SETTINGS = {
    "seed": 1,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "data": {
        "posts": "embedded",
        "posts_revision": None,
        "comparisons": "embedded",
        "comparisons_revision": None,
        "world_seed": 7,
        "max_posts": 60,
        "max_comparisons": 40,
        "max_validation": 10,
        "max_test": 20,
        "max_prompt_tokens": 512,
        "max_response_tokens": 53,
    },
    "model": {"base": "models/base", "revision": None, "random_weights": None},
    "sft": TRAIN,
    "reward": {
        "pretrained": None,
        "revision": None,
        "format": "concat",
        "candidates": 0,
        "candidate_posts": 10,
        "candidate_temperature": 1.0,
        **TRAIN,
    },
    "evaluate": {"batch_size": 8, "bootstrap": 100, "judge": None, "best_of_n": 4, "frontier_posts": 8},
}


EOT = "<|endoftext|>"


@pytest.fixture(scope="session")
def small_bpe():
    """A byte-level BPE tokenizer of some 300 tokens with EOS and pad `<|endoftext|>`, as GPT-2's in kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[EOT], initial_alphabet=alphabet)
    core.train_from_iterator(["my cat left. TL;DR:"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOT, pad_token=EOT)


@pytest.fixture
def settings():
    """Small settings of a whole run, as in params.yaml, to be changed by the test."""
    from minirlhf.params import PPOConfig

    return {**copy.deepcopy(SETTINGS), "ppo": PPOConfig().model_dump(mode="json")}
