"""Loading and saving of models and tokenizers: safetensors and JSON only, no remote code.

A name is a folder, or else a name on the hub, whose files are downloaded and checked first (`minirlhf.hub`).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.data.locate import HUB_NAME
from minirlhf.errors import UserError, first_line
from minirlhf.files import replace_folder
from minirlhf.hub import download, resolve_commit

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER = ("*.json", "*.txt", "*.model", "*.jinja")  # files of a tokenizer, and a model's config
WEIGHTS = "*.safetensors"


def choose_device(device: str) -> str:
    """The device to run on: the named one, or for "auto" the first at hand of cuda, mps, cpu."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_model(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder of a model's files: the one that is named, or of the hub's files at a revision.

    Raises:
        UserError: there is no such folder or hub name, or `hub.download` cannot get it.
    """
    if Path(name).is_dir():
        return Path(name)
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: no such folder")
    return download(name, resolve_commit(name, revision, "model"), "model", patterns)


def load_config(name: str, revision: str | None = None, overrides: dict | None = None) -> "PreTrainedConfig":
    """The config of a model, changed by `overrides` (as {"n_layer": 2}, model.random_weights of the params).

    Raises:
        UserError: there is no config, or an override is not one of its settings.
    """
    from transformers import AutoConfig

    folder = find_model(name, revision, TOKENIZER)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises a different type for nearly every kind of damage
        raise UserError(f"{name}: cannot load the config ({first_line(error)})") from error
    for key, value in (overrides or {}).items():
        if not hasattr(config, key):
            raise UserError(f"model.random_weights.{key}: not a setting of {config.model_type}")
        setattr(config, key, value)
    return config


def read_tokenizer(name: str, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or a hub name, as it is.

    Raises:
        UserError: there is no tokenizer.
    """
    from transformers import AutoTokenizer

    folder = find_model(name, revision, TOKENIZER)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{name}: cannot load the tokenizer ({first_line(error)})") from error


def load_tokenizer(name: str, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a policy. Its pad token is its EOS where it has none, as with GPT-2.

    Raises:
        UserError: there is no tokenizer, or it has no EOS token, without which no summary could end.
    """
    tokenizer = read_tokenizer(name, revision)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name}: the tokenizer has no EOS token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(name: str, revision: str | None = None, **options) -> "PreTrainedModel":
    """The causal language model of a folder or a hub name, in fp32, with dropout as its config says.

    Options go to `from_pretrained`.

    Raises:
        UserError: there is no such model, no weights in safetensors format, or they do not fit the config.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, name, revision, **options)


def load_reward_model(name: str, revision: str | None = None, **options) -> "PreTrainedModel":
    """A sequence-classification model with one label, in fp32. Of a causal language model only the head is new.

    Raises:
        UserError: as `load_policy`, or the model has more than one label.
    """
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, name, revision, **options)


def _load(auto_class, name: str, revision: str | None, **options) -> "PreTrainedModel":
    import torch

    from minirlhf.kernels import use_fast_kernels

    folder = find_model(name, revision, (*TOKENIZER, WEIGHTS))
    if not any(folder.glob(WEIGHTS)):
        hint = "" if folder == Path(name) else "; a conversion may wait as a pull request: try revision refs/pr/1"
        raise UserError(f"{name}: no weights there ({WEIGHTS}){hint}")
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False, **options}
    try:
        model = auto_class.from_pretrained(folder, **options)
    except Exception as error:
        raise UserError(f"{name}: cannot load the model ({first_line(error)})") from error
    use_fast_kernels(model)
    return model


def random_policy(name: str, revision: str | None, overrides: dict, seed: int) -> "PreTrainedModel":
    """A policy with random weights: the config of `name`, changed by `overrides` (as {"n_layer": 2}).

    Raises:
        UserError: as `load_config`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from minirlhf.kernels import use_fast_kernels

    config = load_config(name, revision, overrides)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    use_fast_kernels(model)
    return model


def save_model(
    folder: str | Path, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", **extra: dict
) -> None:
    """Write a model and its tokenizer as a whole folder; each of `extra` becomes NAME.json in it."""
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for name, content in extra.items():
            (new / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
