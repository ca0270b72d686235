"""Fixtures that several parts of the tests share."""

import copy
import json
import os
import shutil
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

# Tensors here are tiny: on a busy machine several threads would only wait for each other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test` tries the same few examples of each property every time, `make soak` thousands of new ones.
SOAK = os.environ.get("MINIRLHF_SOAK") == "1"
hypothesis.settings.register_profile("test", max_examples=50, deadline=None, derandomize=True)
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
BASELINE = {"episodes": 16, "batch_size": 8, "micro_batch_size": 4, "beta": 0.05, "learning_rate": 5e-4}
SETTINGS = {
    "seed": 1,
    "ppo_seed": None,
    "launch": "python",
    "threads": 1,
    "arithmetic": "native",
    "device": "cpu",
    "precision": "fp32",
    "resume_minutes": 0,
    "trackers": [],
    "data": {
        "posts": "embedded",
        "posts_revision": None,
        "comparisons": "embedded",
        "comparisons_revision": None,
        "world_seed": 7,
        "habits": 1.0,
        "max_posts": 60,
        "max_comparisons": 40,
        "max_validation": 10,
        "max_test": 20,
        "max_prompt_tokens": 512,
        "body": None,
        "max_response_tokens": 53,
    },
    "model": {"base": "models/base", "revision": None, "random_weights": None},
    "sft": TRAIN,
    "collect": {
        "annotators": "simulated",
        "votes": 0,
        "policy": "models/sft",
        "candidates": 0,
        "posts": 10,
        "temperature": 1.0,
    },
    "feedback": {"rounds": []},
    "reward": {
        "base": None,
        "pretrained": None,
        "revision": None,
        "likelihood": False,
        "format": "concat",
        **TRAIN,
    },
    "algorithm": "ppo",
    "rloo": {**BASELINE, "num_generations": 2, "num_iterations": 1},
    "grpo": {**BASELINE, "num_generations": 2, "num_iterations": 1},
    "dpo": BASELINE,
    "evaluate": {
        "batch_size": 8,
        "bootstrap": 100,
        "judge": None,
        "temperatures": [0.0, 1.0],
        "selection_posts": 6,
        "best_of_n": 4,
        "frontier_posts": 8,
    },
}


EOT = "<|endoftext|>"
SHARED = Path(__file__).parents[2] / "shared"


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


# As Qwen's, which knows no other roles than these.
CHATML = (
    "{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_chatml(tokenizer):
    """A copy of a tokenizer with a ChatML template and its two tokens; its EOS stays."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def gpt2():
    """GPT-2's own tokenizer."""
    folder = SHARED / "models" / "gpt2-tokenizer"
    if not folder.is_dir():
        pytest.skip(f"GPT-2's tokenizer is not at {folder}")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def real_posts():
    """Reddit posts with their authors' summaries: rows of `prompt` and `completion`."""
    path = SHARED / "data" / "tldr" / "validation.jsonl"
    if not path.is_file():
        pytest.skip(f"real posts are not at {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def make_settings():
    """A function that makes small settings of a whole run, as in params.yaml."""
    from minirlhf.settings.params import PPOConfig

    return lambda: {**copy.deepcopy(SETTINGS), "ppo": PPOConfig().model_dump(mode="json")}


@pytest.fixture
def settings(make_settings):
    """Small settings of a whole run, to be changed by the test."""
    return make_settings()


@pytest.fixture(scope="session")
def world_posts():
    """24 held-out posts of the embedded world."""
    from minirlhf.world import posts

    return list(posts(3, "test", 24))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, small_bpe):
    """A folder of tiny models with random weights: the policies `sft` and `ppo`, and `reward`."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models")
    # Weights large enough that two random policies differ; one head, since the posts are 500 of these tokens long.
    sizes = {"vocab_size": len(small_bpe), "n_positions": 1024, "n_embd": 8, "n_layer": 1, "n_head": 1}
    ends = {"bos_token_id": small_bpe.eos_token_id, "eos_token_id": small_bpe.eos_token_id}
    config = GPT2Config(**sizes, **ends, pad_token_id=small_bpe.pad_token_id, initializer_range=0.3, num_labels=1)
    kinds = {"sft": GPT2LMHeadModel, "ppo": GPT2LMHeadModel, "reward": GPT2ForSequenceClassification}
    for seed, (name, kind) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder / name)
        small_bpe.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory):
    """A folder of tiny encoders of 128 positions with random weights and a WordPiece tokenizer of their own.

    `bert` is a trunk without pooler and head, as a MiniLM; `deberta` predicts tokens.
    """
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizer, DebertaV2Config, DebertaV2ForMaskedLM

    from minirlhf.world import posts

    core = BertWordPieceTokenizer()
    core.train_from_iterator([row["prompt"] for row in posts(3, "train", 24)], vocab_size=400, show_progress=False)
    tokenizer = BertTokenizer(vocab=core.get_vocab(), model_max_length=128)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": 128, "initializer_range": 0.2}
    # As DeBERTa-v3: positions are relative alone, and there are no token types.
    relative = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    BertModel(BertConfig(**sizes), add_pooling_layer=False).save_pretrained(folder / "bert")
    deberta = DebertaV2Config(**sizes, **relative, type_vocab_size=0, pooler_hidden_size=16)
    DebertaV2ForMaskedLM(deberta).save_pretrained(folder / "deberta")
    for name in ("bert", "deberta"):
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A committed copy of this checkout, run once on shrunken settings; and what `dvc repro` printed."""
    from tests.pipelines import run_small_pipeline

    folder = tmp_path_factory.mktemp("pipeline") / "a clone"  # a name with a space
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return folder, run_small_pipeline(folder)
    # The first process that asks for it runs it, the others copy what it made, since tests change their clone.
    made = tmp_path_factory.getbasetemp().parent / "a clone"
    with FileLock(f"{made}.lock"):
        if not made.with_suffix(".txt").exists():
            made.with_suffix(".txt").write_text(run_small_pipeline(made))
    shutil.copytree(made, folder, symlinks=True)
    return folder, made.with_suffix(".txt").read_text()
