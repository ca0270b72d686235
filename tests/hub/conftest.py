"""A running hub, and what is on it: a tiny GPT-2, the data sets in their true columns, a DeBERTa-v2 reward model."""

import io
import string
import time
from pathlib import Path

import huggingface_hub
import pyarrow
import pytest
from pyarrow import parquet

from minirlhf.text.prompts import Post, build_prompt
from tests.hub.server import Hub

GPT2 = "openai-community/gpt2"
REWARD = "OpenAssistant/reward-model-deberta-v3-large-v2"
FEEDBACK = "openai/summarize_from_feedback"
CONVERTED = "refs/convert/parquet"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub that runs; this process asks it, and keeps what it gets in `tmp_path / "hf"`."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between huggingface_hub's own attempts
    hub = Hub()
    hub.start()
    # What huggingface_hub reads from the environment once, at its import.
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    yield hub
    hub.stop()
    assert hub.unknown == []  # no other endpoint is asked for


@pytest.fixture
def environment(hub, tmp_path, monkeypatch):
    """The environment of a process that asks the hub, as its user would set it."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture(scope="session")
def gpt2_files(tiny_models) -> dict[str, bytes]:
    """The files of a tiny GPT-2, and some that are of no use here, as the real repository has them."""
    folder = tiny_models / "sft"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"pytorch_model.bin": b"pickle", "onnx/config.json": b"{}", "README.md": b"GPT-2"}


@pytest.fixture(scope="session")
def reward_files(tmp_path_factory) -> dict[str, bytes]:
    """The files of a tiny DeBERTa-v2 classifier with one label, and its own tokenizer, as OpenAssistant's are."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, DebertaV2Tokenizer

    folder = tmp_path_factory.mktemp("deberta")
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "▁", "▁cat", "▁left", *string.printable.strip()]
    DebertaV2Tokenizer(vocab=[(piece, 0.0 if piece[0] == "[" else -1.0) for piece in pieces], unk_id=3).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        initializer_range=0.3,
        num_labels=1,
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def as_parquet(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def a_post(split: str, number: int) -> Post:
    return Post("pets", f"{split} {number}", f"my cat left. number {number} of {split}.")


def tldr(split: str, number: int) -> dict:
    """A row of trl-lib/tldr."""
    return {"prompt": build_prompt(a_post(split, number)), "completion": f" cat left {number}"}


def preference(split: str, number: int) -> dict:
    """A row of trl-lib/tldr-preference."""
    return {"prompt": build_prompt(a_post(split, number)), "chosen": f" cat left {number}", "rejected": " a cat"}


def feedback(split: str, number: int) -> dict:
    """A row of openai/summarize_from_feedback, configuration comparisons, in all its columns."""
    post = a_post(split, number)
    info = {"id": f"t3_{number}", "post": post.body, "title": post.title, "subreddit": post.subreddit}
    summaries = [{"text": " a cat", "policy": "sup1", "note": None}, {"text": " left", "policy": "ref", "note": ""}]
    return {
        "info": info | {"site": None, "article": None},
        "summaries": summaries,
        "choice": number % 2,
        "worker": "w",
        "batch": "batch3.json",
        "split": "train" if split == "train" else "valid1",
        "extra": {"confidence": None},
    }


def parquet_splits(make, prefix: str = "data/", style: str = "{}-00000-of-00001.parquet", count: int = 12):
    """The files of a data set with a train and a validation split of so many rows."""
    splits = ("train", "validation")
    rows = {split: [make(split, number) for number in range(count)] for split in splits}
    return {prefix + style.format(split): as_parquet(rows[split]) for split in splits}


@pytest.fixture
def stocked(hub, gpt2_files, reward_files):
    """The hub with models and data sets on it; commits by name."""
    axis = {"axis/validation/0000.parquet": as_parquet([{"info": {"id": "x"}}]), "README.md": b"x"}
    return {
        GPT2: hub.commit("model", GPT2, gpt2_files),
        REWARD: hub.commit("model", REWARD, reward_files),
        "trl-lib/tldr": hub.commit("dataset", "trl-lib/tldr", parquet_splits(tldr)),
        "trl-lib/tldr-preference": hub.commit("dataset", "trl-lib/tldr-preference", parquet_splits(preference)),
        # A script on its main branch, which is not run: the hub's own conversion is read.
        "main of " + FEEDBACK: hub.commit("dataset", FEEDBACK, {"summarize_from_feedback.py": b"raise SystemExit"}),
        FEEDBACK: hub.commit(
            "dataset", FEEDBACK, axis | parquet_splits(feedback, "comparisons/", "{}/0000.parquet"), CONVERTED
        ),
    }
