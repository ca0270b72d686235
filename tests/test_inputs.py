"""What is refused at the door: every damaged, foreign or hostile input by name, and the line that its user sees.

docs/inputs.md shows the same table; `test_the_document_shows_this_table` compares the two.
"""

import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertLMHeadModel,
    CodeGenConfig,
    CodeGenForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLMConfig,
    XLMWithLMHeadModel,
)

from minirlhf.evaluation.seeds import COLUMNS
from minirlhf.runtime.errors import UserError, printable
from minirlhf.runtime.files import read_json, read_jsonl, write_csv, write_json, write_jsonl
from minirlhf.text.prompts import encode
from minirlhf.world import comparisons, posts
from stages import evaluate, ppo, prepare, report, reward, sft, source
from tests.hub.chat_server import ChatServer
from tests.ppo.conftest import make_tokenizer

ROOT = Path(__file__).parents[1]
STAGES = {each.__name__.removeprefix("stages."): each for each in (source, prepare, sft, reward, ppo, evaluate, report)}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def template(tmp_path_factory, make_settings, tiny_models):
    """A whole project whose every stage could run: prepared data, notes, own posts, models."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, kind in (("base", "sft"), ("sft", "sft"), ("ppo", "ppo"), ("reward", "reward")):
        shutil.copytree(tiny_models / kind, folder / "models" / name)
    write_json(folder / "models/reward/reward.json", {"format": "concat", "mean": 0.0})
    write_json(folder / "models/ppo/ppo.json", {"episodes": 8})
    write_csv(folder / "metrics/seeds.csv", [], list(COLUMNS))
    settings = make_settings()
    settings["data"] |= {"max_prompt_tokens": 512, "max_response_tokens": 8}
    for stage in ("sft", "reward"):
        settings[stage] |= {"steps": 1, "log_every": 1, "eval_every": 1}
    settings["ppo"] |= {"episodes": 8, "batch_size": 8, "max_new_tokens": 4, "ppo_epochs": 1}
    settings["evaluate"] |= {"best_of_n": 1, "bootstrap": 20}
    write_json(folder / "params.yaml", settings)  # JSON is YAML
    for split in ("train", "validation", "test"):
        for home in ("data/prepared", "own"):
            write_jsonl(folder / f"{home}/posts/{split}.jsonl", posts(1, split, 8))
            write_jsonl(folder / f"{home}/comparisons/{split}.jsonl", comparisons(1, split, 8))
    for name in ("posts", "comparisons"):
        write_json(folder / f"data/sources/{name}.json", {"kind": "folder", "name": f"own/{name}"})
    write_json(folder / "data/sources/base.json", {"kind": "folder"})
    write_json(folder / "data/sources/reward.json", {"kind": "folder"})
    return folder


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    """A copy of it, to be damaged; the current folder."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "project"


# Kinds of damage: each makes a function of the project's folder.


def cut(name, keep=0.5):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def write(name, content):
    def damage(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def remove(name):
    def damage(folder):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return damage


def change(name, *keys, value):
    """Put a value under nested keys of a JSON file."""

    def damage(folder):
        content = inner = read_json(folder / name)
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(content))  # NaN too

    return damage


def param(*keys, value):
    return change("params.yaml", *keys, value=value)


def tensors(name, edit):
    """Edit the tensors of a safetensors file."""

    def damage(folder):
        weights = load_file(folder / name)
        edit(weights)
        save_file(weights, folder / name, {"format": "pt"})

    return damage


def flip_a_bit(folder):
    """One bit of a 1.0, its exponent's highest: infinity. The file stays a good safetensors file."""
    file = folder / "models/base" / WEIGHTS
    content = bytearray(file.read_bytes())
    at = content.index(struct.pack("<f", 1.0) * 4)  # a layer norm
    content[at + 3] ^= 0x40
    file.write_bytes(content)


def replace(name, model):
    """Another model's config and weights beside the tokenizer there."""

    def damage(folder):
        model().save_pretrained(folder / name)

    return damage


def do(*damages):
    return lambda folder: [damage(folder) for damage in damages]


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def own(*damages):
    """The own posts and comparisons are what is prepared, after this damage."""
    names = [param("data", name, value=f"own/{name}") for name in ("posts", "comparisons")]
    return do(*names, *damages)


def write_parquet(folder):
    parquet.write_table(pyarrow.table({"prompt": ["a"] * 99, "completion": ["b"] * 99}), folder / "own/posts/x.parquet",
                        write_page_checksum=True, compression="none")  # fmt: skip
    (folder / "own/posts/x.parquet").rename(folder / "own/posts/train.parquet")
    (folder / "own/posts/train.jsonl").unlink()


def flip_in_parquet(folder):
    file = folder / "own/posts/train.parquet"
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)


def tiny_bert():
    return BertLMHeadModel(BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                      intermediate_size=8, max_position_embeddings=1024))  # fmt: skip


def tiny_t5():
    return T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1))


def tiny_xlm():
    return XLMWithLMHeadModel(XLMConfig(vocab_size=300, emb_dim=8, n_layers=1, n_heads=1, max_position_embeddings=1024))


def tiny_mamba():
    return MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, initializer_range=0.5))


def tiny_codegen():
    return CodeGenForCausalLM(CodeGenConfig(vocab_size=300, n_positions=1024, n_embd=8, n_layer=1, n_head=1,
                                            rotary_dim=4))  # fmt: skip


def lora(*names):
    return param("ppo", "lora", value={"rank": 2, "alpha": 4.0, "target_modules": list(names)})


def judge(name="./judge", **settings):
    return param("evaluate", "judge", value={"name": name, **settings})


def two_labels():
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=300, n_positions=1024, n_embd=8, n_layer=1, n_head=1,
                                                    num_labels=2, pad_token_id=0, eos_token_id=1))  # fmt: skip


def bigger_tokenizer():
    return make_tokenizer(320)


def infinite_rate(folder):
    text = (folder / "params.yaml").read_text()
    assert text.count('"learning_rate": 3e-06') == 1
    (folder / "params.yaml").write_text(text.replace('"learning_rate": 3e-06', '"learning_rate": .inf'))


class Planted:
    """A pickle that makes a file named `ran` where it is loaded."""

    def __reduce__(self):
        return (open, ("ran", "w"))


PICKLE = pickle.dumps(Planted())
CODE = "open('ran', 'w')\nfrom transformers import GPT2Config as MyConfig, GPT2LMHeadModel as MyModel\n"
AUTO_MAP = {"AutoConfig": "code.MyConfig", "AutoModelForCausalLM": "code.MyModel"}
POSTS, COMPARISONS = "data/prepared/posts", "data/prepared/comparisons"
CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
REWARD_BY_NAME = param("reward", "pretrained", value="models/reward")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

# name: (stage, damage, the line or how it begins)
CASES = {
    # The weights of a model
    "weights cut off": ("sft", cut(f"models/base/{WEIGHTS}"), f"models/base/{WEIGHTS}: cannot be read ("),
    "weights of 0 bytes": ("sft", write(f"models/base/{WEIGHTS}", b""), f"models/base/{WEIGHTS}: cannot be read ("),
    "weights without a tensor": (
        "sft", lambda folder: save_file({}, folder / f"models/base/{WEIGHTS}"),
        f"models/base/{WEIGHTS}: there are no weights in it"),
    "a bit flipped to infinity": (
        "sft", flip_a_bit,
        "models/base: NaN or infinity in the weights transformer.h.0.ln_1.weight: damaged, or badly trained"),
    "NaN in the weights": (
        "ppo", tensors(f"models/sft/{WEIGHTS}", lambda all: all["transformer.wte.weight"][3].fill_(torch.nan)),
        "models/sft: NaN or infinity in the weights transformer.wte.weight"),
    "NaN in the reward model": (
        "ppo", tensors(f"models/reward/{WEIGHTS}", lambda all: all["score.weight"].fill_(torch.nan)),
        "models/reward: NaN or infinity in the weights score.weight"),
    "a tensor is missing": (
        "sft", tensors(f"models/base/{WEIGHTS}", lambda all: all.pop("transformer.wpe.weight")),
        "models/base: no weights transformer.wpe.weight, which a GPT2LMHeadModel has"),
    "tensors of another size": (
        "sft", change("models/base/config.json", "n_embd", value=16), "models/base: cannot load the model ("),
    "weights in pytorch_model.bin only": (
        "sft", rename(f"models/base/{WEIGHTS}", "models/base/pytorch_model.bin"),
        "models/base: no weights in safetensors format there"),
    "a reward model in GGUF format only": (
        "prepare", do(REWARD_BY_NAME, rename(f"models/reward/{WEIGHTS}", "models/reward/model-q4.gguf")),
        "models/reward: no weights in safetensors format there"),
    "a reward model of which a file is missing": (
        "prepare",
        do(REWARD_BY_NAME, rename(f"models/reward/{WEIGHTS}", "models/reward/model-00001-of-00002.safetensors"),
           write(f"models/reward/{WEIGHTS}.index.json", '{"weight_map": {"score.weight": "2.safetensors"}}')),
        "models/reward: no file 2.safetensors, which model.safetensors.index.json names"),
    "weights that git-lfs has not fetched": (
        "prepare", write(f"models/base/{WEIGHTS}", POINTER),
        f"models/base/{WEIGHTS}: not the file itself, but git-lfs's pointer to it: git lfs pull"),
    "a config of quantized weights": (
        "prepare", change("models/base/config.json", "quantization_config", value={"quant_method": "gptq", "bits": 4}),
        "models/base: its weights are quantized (gptq): name the model as it was before"),
    "a damaged snapshot": (
        "evaluate", do(lambda folder: shutil.copytree(folder / "models/sft", folder / "models/ppo/snapshots/e-1"),
                       cut(f"models/ppo/snapshots/e-1/{WEIGHTS}")),
        f"models/ppo/snapshots/e-1/{WEIGHTS}: cannot be read ("),
    "a policy that the ppo stage did not make": (
        "evaluate", write("models/ppo/ppo.json", "{}"), "models/ppo/ppo.json: no 'episodes' in it"),
    # Its config and tokenizer
    "config.json cut off": ("sft", cut("models/base/config.json"), "models/base/config.json: not JSON: "),
    "config.json is a list": ("sft", write("models/base/config.json", "[]"), "models/base: cannot load "),
    "config.json missing": ("sft", remove("models/base/config.json"), "models/base: cannot load the config ("),
    "an unknown model_type": (
        "sft", change("models/base/config.json", "model_type", value="gpt99"), "models/base: cannot load "),
    "tokenizer.json cut off": ("sft", cut("models/base/tokenizer.json"), "models/base/tokenizer.json: not JSON: "),
    "tokenizer.json of something else": (
        "sft", write("models/base/tokenizer.json", "{}"), "models/base: cannot load the tokenizer ("),
    "tokenizer_config.json cut off": (
        "prepare", own(cut("models/base/tokenizer_config.json")), "models/base/tokenizer_config.json: not JSON: "),
    "tokenizer.json missing": (
        "prepare", do(remove("models/base/tokenizer.json"), write(
            "models/base/tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}')),
        "models/base: the tokenizer has no vocabulary: its file (as tokenizer.json) is missing"),
    "a tokenizer without EOS": (
        "sft", change("models/base/tokenizer_config.json", "eos_token", value=None),
        "models/base: the tokenizer has no EOS token"),
    "an EOS token beyond the embeddings": (
        "sft", change("models/base/tokenizer_config.json", "eos_token", value="<new>"),
        "models/base: 268 embeddings are too few for the tokenizer's 269 tokens"),
    "eos_token_id beyond the embeddings": (
        "sft", change("models/base/config.json", "eos_token_id", value=300),
        "models/base: config.json: eos_token_id 300 has no embedding"),
    "a tokenizer of another vocabulary": (
        "ppo", lambda folder: bigger_tokenizer().save_pretrained(folder / "models/sft"),
        "models/sft: 268 embeddings are too few for the tokenizer's 320 tokens"),
    "another vocabulary, evaluated": (
        "evaluate", lambda folder: bigger_tokenizer().save_pretrained(folder / "models/sft"),
        "models/sft: 268 embeddings are too few for the tokenizer's 320 tokens"),
    "a reward model's tokenizer of another vocabulary": (
        "ppo", lambda folder: bigger_tokenizer().save_pretrained(folder / "models/reward"),
        "models/reward: 268 embeddings are too few for the tokenizer's 320 tokens"),
    # A model of another kind
    "BERT as the policy": ("sft", replace("models/base", tiny_bert), "models/base (BertLMHeadModel): "),
    "XLM, an encoder, as the policy": (
        "sft", replace("models/base", tiny_xlm),
        "models/base (XLMWithLMHeadModel): not a causal language model: its first logits depend on the second token"),
    "T5 as the policy": (
        "prepare", replace("models/base", tiny_t5),
        "model.base: models/base (t5): transformers has no causal language model of it"),
    "Mamba, a recurrent network, as the policy": (
        "sft", do(REWARD_BY_NAME, replace("models/base", tiny_mamba)),
        "models/base (MambaForCausalLM): not supported: its logits depend on padding before the first token"),
    "a policy whose kind has no classifier": (
        "prepare", replace("models/base", tiny_codegen),
        "model.base: transformers has no sequence classifier of models/base (codegen), so it cannot score: set "
        "reward.base or reward.pretrained to another model"),
    "a reward model from a kind without a classifier": (
        "prepare", do(param("reward", "base", value="models/reward"), replace("models/reward", tiny_codegen)),
        "reward.base: transformers has no sequence classifier of models/reward (codegen), so it cannot score"),
    "quantized weights": (
        "sft", tensors(f"models/base/{WEIGHTS}", lambda all: all.update(
            {"transformer.wpe.weight": all["transformer.wpe.weight"].to(torch.int8)})),
        f"models/base/{WEIGHTS}: the weights transformer.wpe.weight are quantized (I8): fp32, bf16 or fp16 can be "),
    "an adapter forgotten beside weights": (
        "prepare", write("models/base/adapter_config.json", "{}"),
        "models/base/adapter_config.json: an adapter beside the model's weights: take adapter_* away"),
    "an adapter alone": (
        "prepare", do(remove("models/base/config.json"), write("models/base/adapter_config.json", "{}")),
        "models/base: it holds an adapter alone, of None: merge it into that model"),
    "an adapter forgotten in SFT's folder": (
        "ppo", write("models/sft/adapter_config.json", "{}"),
        "models/sft/adapter_config.json: an adapter beside the model's weights: take adapter_* away"),
    "an adapter forgotten in the reward model's folder": (
        "ppo", write("models/reward/adapter_config.json", "{}"),
        "models/reward/adapter_config.json: an adapter beside the model's weights: take adapter_* away"),
    "LoRA on a layer that is not there": (
        "prepare", lora("c_attn", "q_proj"),
        "ppo.lora.target_modules: GPT2LMHeadModel has no layer q_proj; it has wpe, c_attn, c_proj, c_fc"),
    "LoRA on tied embeddings": (
        "prepare", lora("c_attn", "lm_head"),
        "ppo.lora.target_modules: lm_head shares its weights with another layer of GPT2LMHeadModel; leave it out"),
    "a reward model of two labels": (
        "ppo", replace("models/reward", two_labels), "models/reward: it has 2 labels; a reward model has 1"),
    "a pretrained reward model of two labels": (
        "prepare", do(REWARD_BY_NAME, replace("models/reward", two_labels)),
        "models/reward: it has 2 labels; a reward model has 1"),
    "a language model as the reward model": (
        "prepare", param("reward", "pretrained", value="models/sft"),
        "reward.pretrained: models/sft is a GPT2LMHeadModel, which gives no score; reward.base trains one from it"),
    "a reward model without a score": (
        "reward", do(REWARD_BY_NAME, tensors(f"models/reward/{WEIGHTS}", lambda all: all.pop("score.weight"))),
        "models/reward: no weights score.weight, which a "),
    "responses too long for the reward model": (
        "prepare", do(param("reward", "base", value="models/reward"),
                      change("models/reward/config.json", "n_positions", value=8)),
        "data.max_response_tokens (8) is too long for the 8 positions of models/reward"),
    "a judge that is not there": (
        "prepare", judge(kind="reward_model", revision=None, format=None), "./judge: no such folder"),
    "a judge's file that is not there": (
        "prepare", judge(kind="function", name="judge.py:score"), "evaluate.judge.name: no file judge.py"),
    "a judge's file without that function": (
        "prepare", do(write("judge.py", "def scores(): ..."), judge(kind="function", name="judge.py:score")),
        "evaluate.judge.name: judge.py has no function score"),
    "a judge's file that cannot be run": (
        "sft", do(write("judge.py", "import nowhere"), judge(kind="pairwise_function", name="judge.py:score")),
        "evaluate.judge.name: judge.py cannot be run: ModuleNotFoundError("),
    "a judge behind an endpoint that nobody serves": (
        "prepare", judge(kind="endpoint", name="m", url="http://127.0.0.1:1/v1", max_posts=8, timeout=60),
        "evaluate.judge: http://127.0.0.1:1/v1/chat/completions: cannot be reached: "),
    "prompts longer than the model": (
        "prepare", param("data", "max_prompt_tokens", value=2000),
        "data.max_prompt_tokens (2000) and data.max_response_tokens (8) together exceed the 1024 positions of "
        "models/base"),
    "a reward.json cut off": ("ppo", cut("models/reward/reward.json"), "models/reward/reward.json: not JSON: "),
    "a reward.json that divides by 0": (
        "ppo", change("models/reward/reward.json", "scale", value=0), "models/reward/reward.json: scale is 0: "),
    "a reward.json with NaN": (
        "ppo", change("models/reward/reward.json", "mean", value=float("nan")),
        "models/reward/reward.json: mean is nan: "),
    # Places
    "a file for a folder": ("sft", param("model", "base", value="params.yaml"), "params.yaml: expected a folder, got "),
    "no such folder": ("sft", param("model", "base", value="./none"), "./none: no such folder"),
    "no such stage output": ("ppo", remove("models/sft"), "models/sft: no such folder"),
    "a file for a stage output": (
        "evaluate", do(remove("models/ppo"), write("models/ppo", "x")),
        "models/ppo/ppo.json: cannot be read: Not a directory"),
    "a name that leaves the repository": (
        "source", param("model", "base", value="../../none"), "../../none: no such folder"),
    # Data
    "JSON lines cut off": ("sft", cut(f"{POSTS}/train.jsonl"), f"{POSTS}/train.jsonl, line "),
    "a row without its text": (
        "sft", write(f"{POSTS}/train.jsonl", '{"prompt": "a"}\n'),
        f"{POSTS}/train.jsonl, line 1: no text under 'completion'"),
    "a number for a text": (
        "ppo", write(f"{POSTS}/train.jsonl", '{"prompt": 1}\n'),
        f"{POSTS}/train.jsonl, line 1: no text under 'prompt'"),
    "half of a surrogate pair": (
        "ppo", write(f"{POSTS}/train.jsonl", '{"prompt": "\\ud800"}\n'),
        f"{POSTS}/train.jsonl, line 1: no text under 'prompt'"),
    "comparisons without a rejected": (
        "reward", write(f"{COMPARISONS}/test.jsonl", '{"prompt": "a", "chosen": "b"}\n'),
        f"{COMPARISONS}/test.jsonl, line 1: no text under 'rejected'"),
    "no rows": ("evaluate", write(f"{POSTS}/test.jsonl", "\n"), f"{POSTS}/test.jsonl: no rows"),
    "a missing file": ("ppo", remove(f"{POSTS}/train.jsonl"), f"{POSTS}/train.jsonl: cannot be read: No such file"),
    "a source's note cut off": ("sft", cut("data/sources/base.json"), "data/sources/base.json: not JSON: "),
    "a source's note that is no object": (
        "sft", write("data/sources/base.json", "[]"), "data/sources/base.json: expected a JSON object, got list"),
    "an empty post in prepared data": (
        "ppo", write(f"{POSTS}/train.jsonl", '{"prompt": ""}\n'), "prompts: prompt 0 is empty"),
    "a post too long in prepared data": (
        "ppo", write(f"{POSTS}/train.jsonl", json.dumps({"prompt": "long " * 20_000}) + "\n"),
        "a prompt of "),
    "parquet cut off": (
        "prepare", own(write_parquet, cut("own/posts/train.parquet")),
        "own/posts/train.parquet: not a parquet file that can be read: "),
    "a bit flipped in parquet with checksums": (
        "prepare", own(write_parquet, flip_in_parquet),
        "own/posts/train.parquet: not a parquet file that can be read: "),
    "own JSON lines cut off": ("prepare", own(cut("own/posts/train.jsonl")), "own/posts/train.jsonl, line "),
    "JSON lines in half of UTF-16": (
        "prepare", own(write("own/posts/train.jsonl", '{"prompt": "a"}'.encode("utf-16")[:-1])),
        "own/posts/train.jsonl: not UTF-16, as which it begins: save it as UTF-8"),
    "data that git-lfs has not fetched": (
        "prepare", own(write("own/posts/train.jsonl", POINTER)),
        "own/posts/train.jsonl: not the file itself, but git-lfs's pointer to it: git lfs pull"),
    "a JSON list cut off": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train.json", '[{"prompt": "a"},')),
        "own/posts/train.json: not JSON: "),
    "CSV cut off": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train.csv", 'prompt,completion\na,"b\n')),
        "own/posts/train.csv, line 2: not CSV: unexpected end of data"),
    "two files for one split": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train_prefs.jsonl", "{}"),
                       write("own/posts/train_gen.jsonl", "{}")),
        "own/posts: several files for train (train_gen.jsonl, train_prefs.jsonl): leave the one that is meant"),
    "one of two shards": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train-00000-of-00002.jsonl", "{}")),
        "own/posts: train: only 1 of 2 files, of which train-00000-of-00002.jsonl is one"),
    "no held-out split": (
        "prepare", own(remove("own/posts/validation.jsonl"), remove("own/posts/test.jsonl")),
        "own/posts: no validation split among train.jsonl: expected validation with .jsonl"),
    "chats, and no chat template": (
        "prepare", own(write("own/posts/train.jsonl", json.dumps({"messages": CHAT}))),
        "data.posts: own/posts: its rows are chats, and the tokenizer has no chat template: give texts, or"),
    "a body that is no regular expression": (
        "prepare", own(param("data", "body", value="(")), "data.body: not a regular expression: "),
    "a pattern without a body": (
        "prepare", own(param("data", "body", value="a")), "data.body: a regular expression with a group"),
    "no row that can be used": (
        "prepare", own(write("own/posts/train.jsonl", '{"prompt": " ", "completion": "b"}\n')),
        "data.posts: own/posts: no usable row in the train split: refused 1 empty_prompt"),
    # Code
    "a pickle as pytorch_model.bin": (
        "sft", do(remove(f"models/base/{WEIGHTS}"), write("models/base/pytorch_model.bin", PICKLE)),
        "models/base: no weights in safetensors format there"),
    "a pickle as safetensors": (
        "sft", write(f"models/base/{WEIGHTS}", PICKLE), f"models/base/{WEIGHTS}: cannot be read ("),
    "a pickle as data": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train.pkl", PICKLE)),
        "own/posts: no train split among test.jsonl, train.pkl, validation.jsonl: expected train with .jsonl"),
    "a pickle as JSON lines": (
        "prepare", own(write("own/posts/train.jsonl", PICKLE)),
        "data.posts: own/posts: no usable row in the train split: refused"),
    "a pickle as parquet": (
        "prepare", own(remove("own/posts/train.jsonl"), write("own/posts/train.parquet", PICKLE)),
        "own/posts/train.parquet: not a parquet file that can be read: "),
    "a model that brings code": (
        "sft", do(write("models/base/code.py", CODE), change("models/base/config.json", "auto_map", value=AUTO_MAP)),
        "models/base/config.json: auto_map asks for code that came with the model, and none is run"),
    "a model of an unknown type that brings code": (
        "sft", do(write("models/base/code.py", CODE), change("models/base/config.json", "auto_map", value=AUTO_MAP),
                  change("models/base/config.json", "model_type", value="mine")),
        "models/base/config.json: auto_map asks for code that came with the model, and none is run"),
    "a tokenizer that brings code": (
        "prepare", own(write("models/base/code.py", CODE),
                       change("models/base/tokenizer_config.json", "auto_map", value={"AutoTokenizer": ["code.T"]})),
        "models/base/tokenizer_config.json: auto_map asks for code that came with the model, and none is run"),
    # Settings
    "an infinite learning rate": (
        "ppo", infinite_rate, "ppo.learning_rate: expected a number > 0, got inf (params.yaml)"),
    "tabs in the settings": (
        "ppo", write("params.yaml", "seed: 1\ndata:\n\tposts: embedded\n"), "params.yaml, line 3: not YAML: "),
    "a key twice": (
        "ppo", write("params.yaml", "seed: 1\nseed: 2\n"), 'params.yaml, line 2: not YAML: found duplicate key "seed"'),
    "settings that are no UTF-8": ("ppo", write("params.yaml", b"seed: \xff"), "params.yaml: not UTF-8 at byte 6"),
    "settings with NUL bytes": ("ppo", write("params.yaml", b"seed: 1\x00"), "params.yaml: not YAML"),
    "no settings": ("ppo", remove("params.yaml"), "params.yaml: cannot be read: No such file or directory"),
}  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    """What stands in a folder; folders too, resume state apart."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if ".resume" not in path.parts
    }


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_file_or_the_setting(name, project):
    stage, damage, line = CASES[name]
    damage(project)
    before = files_of(project)
    with pytest.raises(UserError) as caught:
        STAGES[stage].main([])
    shown = printable(str(caught.value))
    assert shown.startswith(line) and len(shown) < 600
    after = {path: content for path, content in files_of(project).items() if "__pycache__" not in path}  # of a judge's
    written = {path for path, content in after.items() if before.get(path) != content}
    assert written <= {"data/prepared", "data/collected", "models", "data"}, "half-written"
    assert not (project / "ran").exists(), "code from an input was run"


@pytest.mark.parametrize("stage", ["prepare", "sft", "reward", "ppo"])
def test_a_judge_that_takes_no_key_is_met_before_any_training(project, monkeypatch, stage):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-this-one")
    with ChatServer(lambda request: (401, {}, b'{"error": {"message": "sk-not-this-one is unknown"}}')) as server:
        judge(kind="endpoint", name="m", url=server.url, max_posts=8, timeout=60)(project)
        with pytest.raises(UserError) as caught:
            STAGES[stage].main([])
    line = (
        f"evaluate.judge: {server.url}/chat/completions: 401 Unauthorized (*** is unknown); set OPENAI_API_KEY to a key"
    )
    assert str(caught.value).startswith(line) and len(server.requests) == 1


@pytest.mark.parametrize("name", ["a number for a text", "JSON lines cut off", "a key twice"])
def test_the_command_line_prints_just_that(name, project):
    stage, damage, line = CASES[name]
    damage(project)
    done = subprocess.run([sys.executable, ROOT / "stages" / f"{stage}.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert not (project / "ran").exists()


def test_the_document_shows_this_table():
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \| `(.+)` \|$", (ROOT / "docs/inputs.md").read_text(), re.MULTILINE)
    assert rows == [(name, stage, line.rstrip(" (")) for name, (stage, _, line) in CASES.items()]


ODD_POSTS = {
    "of 100,000 characters": "my cat left. " * 7_700,
    "one word of 100,000 letters": "x" * 100_000,
    "all emoji": "🙂👩‍👩‍👧 🎉" * 40,
    "right to left": "هذا منشور عن قطتي \u202e\u200f" * 4,
    "NUL bytes": "my\x00cat\x00left",
    "escape sequences": "\x1b[31mred\x1b]0;title\x07\r\nnext \x9b31m",
    "special tokens": "it ended.<|endoftext|> [SEP] </s> and went on <|endoftext|>",
    "markup": "<script>alert(1)</script> | a | ![x](http://x) **b**",
    "the format itself": "POST: TL;DR: \n\nTL;DR:\n\nSUBREDDIT: r/b\n\nTITLE: c\n\nPOST: d",
}


def test_odd_posts_go_through_every_stage(project, small_bpe, capfd):
    """Kept whole or cut, never a crash; nothing of them reaches the terminal or the pages as control characters."""
    rows = [
        {"prompt": f"SUBREDDIT: r/odd\n\nTITLE: {name}\n\nPOST: {text}\n\nTL;DR:", "completion": f" {text[:3]}"}
        for name, text in ODD_POSTS.items()
    ]
    own()(project)
    for split in ("train", "validation", "test"):
        # Each split's posts are its own: one that another split has is held out, in any spelling.
        named = [{**row, "prompt": row["prompt"].replace("\n\nPOST: ", f"\n\nPOST: {split} ", 1)} for row in rows]
        write_jsonl(f"own/posts/{split}.jsonl", named)
        write_jsonl(
            f"own/comparisons/{split}.jsonl",
            [{"prompt": row["prompt"] + " ", "chosen": row["completion"], "rejected": "no"} for row in named],
        )
    param("data", "max_response_tokens", value=40)(project)
    param("ppo", "batch_size", value=2)(project)
    for name in STAGES:
        STAGES[name].main([])
    kept = read_jsonl("data/prepared/posts/train.jsonl")
    assert len(kept) == len(ODD_POSTS) and all(len(encode(small_bpe, row["prompt"])) <= 512 for row in kept)
    eos = small_bpe.eos_token_id
    assert not any(eos in encode(small_bpe, row[column]) for row in kept for column in ("prompt", "completion"))
    pages = [*project.glob("results/*.md"), *project.glob("models/*.md"), project / "results/report.html"]
    assert len(pages) == 6
    shown = "".join(capfd.readouterr()) + "".join(page.read_text() for page in pages)
    assert not set(re.findall(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202e]", shown))  # bars draw with \\r


SECRETS = {"HF_TOKEN": "hf_canaryOfTheHub", "OPENAI_API_KEY": "sk-canaryOfOpenAI"}


def test_no_secret_and_nothing_executable_reaches_an_output(project, monkeypatch, capfd):
    """Every stage runs on what is not damaged, so that the cases above fail by their damage alone."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (project / "models/base/training_args.bin").write_bytes(PICKLE)
    (project / "models/base/pytorch_model.bin").write_bytes(PICKLE)  # beside the safetensors
    own(*map(remove, ("models/sft", "models/reward", "models/ppo", "data/prepared")))(project)
    param("data", "max_response_tokens", value=200)(project)
    settings = json.dumps(read_json("params.yaml"), indent=1).replace("\n", "\r\n")  # as an editor on Windows saves it
    (project / "params.yaml").write_bytes(b"\xef\xbb\xbf" + settings.encode())
    for name in STAGES:
        STAGES[name].main([])
    written = {path: content for path, content in files_of(project).items() if not path.startswith("models/base/")}
    printed = "".join(capfd.readouterr()).encode()
    assert not [path for path, content in written.items() for value in SECRETS.values() if value.encode() in content]
    assert not any(value.encode() in printed for value in SECRETS.values())
    delivered = {Path(path).suffix for path, content in written.items() if path.startswith("models/") and content}
    assert delivered == {".safetensors", ".json", ".md"}
    assert not (project / "ran").exists()


def test_nothing_is_written_beside_the_outputs(project):
    """No setting names an output; names of inputs may lead outside, and nothing is written there."""
    outside = project.parent / "outside"
    (project / "own").rename(outside)
    for name in ("posts", "comparisons"):
        param("data", name, value=f"../outside/{name}")(project)
    (project / "models/base").rename(outside / "base")
    param("model", "base", value="../outside/base")(project)
    param("data", "max_response_tokens", value=200)(project)
    before = files_of(outside)
    for name in ("source", "prepare"):
        STAGES[name].main([])
    assert files_of(outside) == before and {path.name for path in project.parent.iterdir()} == {"outside", "project"}
