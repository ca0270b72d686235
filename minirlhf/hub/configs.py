"""A model's config and tokenizer, from a folder or the hub: what can be known of a model before its weights are read.

A `Path` is a folder, which must be there; a text is a folder, or else a name on the hub, whose files are downloaded and
checked first (`minirlhf.hub.repository`). Nothing that came with a model is ever run.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.hub.locate import HUB_NAME
from minirlhf.hub.repository import download, resolve_commit
from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import check_is_there, read_json, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

Place = str | Path
ADAPTER = "adapter_config.json"  # of peft; transformers puts its adapter over whatever weights it finds, without a word
WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
LIKELIHOOD = "likelihood"  # in a reward model's folder, the language model whose likelihood its score weighs as well
TOKENIZER = ("*.json", "*.txt", "*.model", "*.jinja")  # files of a tokenizer, and a model's config


FLOATS = ("F64", "F32", "F16", "BF16")  # of safetensors
# What reads a *.model file where there is no tokenizer.json: package -> the module of it.
SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}


def find_model(place: Place, revision: str | None, patterns: tuple[str, ...], inside: str = "") -> Path:
    """The folder of a model's files, checked: the one that is named, or of the hub's files at a revision.

    Args:
        inside: the subfolder that is meant, for a model within another; it may not be there.

    Raises:
        UserError: there is no such folder or hub name, `hub.download` cannot get it, or `check_files` refuses it.
    """
    folder = Path(place)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{place}: expected a folder, got a file")
    if not folder.is_dir():
        if isinstance(place, Path) or not HUB_NAME.fullmatch(place):
            raise UserError(f"{place}: no such folder")
        patterns = tuple(f"{inside}/{pattern}" for pattern in patterns) if inside else patterns
        folder = download(place, resolve_commit(place, revision, "model"), "model", patterns)
    check_files(folder / inside)
    return folder / inside


def check_files(folder: Path) -> None:
    """Raise UserError for a model's folder with a file that is damaged, of an adapter, or asks for code; it is named.

    A bit that flipped within the weights does not show here: `load_policy` sees what it turns to NaN or infinity.
    """
    from safetensors import safe_open

    for file in sorted(folder.glob("*.json")):
        check_is_there(file)
        content = read_json(file)
        if isinstance(content, dict) and content.get("auto_map"):
            raise UserError(f"{file}: auto_map asks for code that came with the model, and none is run")
    _check_for_adapter(folder)
    for file in sorted(folder.glob(WEIGHTS)):
        check_is_there(file)
        try:
            with safe_open(file, "pt") as weights:
                names = list(weights.keys())
                kinds = {name: weights.get_slice(name).get_dtype() for name in names}
        except Exception as error:
            raise UserError(f"{file}: cannot be read ({first_line(error)})") from error
        if not names:
            raise UserError(f"{file}: there are no weights in it")
        for name, kind in kinds.items():
            if kind not in FLOATS and name.endswith(".weight"):
                raise UserError(f"{file}: the weights {name} are quantized ({kind}): fp32, bf16 or fp16 can be trained")


def _check_for_adapter(folder: Path) -> None:
    """Raise UserError for a folder that holds an adapter: alone it is no model, and beside weights a second meaning."""
    if not (folder / ADAPTER).exists():
        return
    if (folder / "config.json").exists():
        raise UserError(
            f"{folder / ADAPTER}: an adapter beside the model's weights: take adapter_* away if the weights have it "
            f"merged already, or else merge it (peft's merge_and_unload)"
        )
    base = read_object(folder / ADAPTER).get("base_model_name_or_path")
    raise UserError(
        f"{folder}: it holds an adapter alone, of {base}: merge it into that model (peft's merge_and_unload), and name "
        f"the folder of the merged weights"
    )


def load_config(name: Place, revision: str | None = None, overrides: dict | None = None) -> "PreTrainedConfig":
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
    if quantized := getattr(config, "quantization_config", None):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise UserError(
            f"{name}: its weights are quantized ({method or 'by its config.json'}): name the model as it was before"
        )
    for key, value in (overrides or {}).items():
        if not hasattr(config, key):
            raise UserError(f"model.random_weights.{key}: not a setting of {config.model_type}")
        setattr(config, key, value)
    return config


def check_weights(folder: Path, name: Place) -> None:
    """Raise UserError for a model's folder without weights that can be read."""
    if not any(folder.glob(WEIGHTS)):
        hint = "" if folder == Path(name) else "; a conversion may wait as a pull request: try revision refs/pr/1"
        raise UserError(f"{name}: no weights in safetensors format there ({WEIGHTS}), and no other is read{hint}")
    index = folder / INDEX
    if index.exists() and not (folder / "model.safetensors").exists():
        shards = read_object(index, ("weight_map",))["weight_map"].values()
        missing = [shard for shard in sorted(set(shards)) if not (folder / shard).is_file()]
        if missing:
            raise UserError(f"{name}: no file {missing[0]}, which {INDEX} names")


def read_tokenizer(name: Place, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or a hub name, as it is.

    Raises:
        UserError: there is no tokenizer, or not the package that its format asks for.
    """
    from transformers import AutoTokenizer

    folder = find_model(name, revision, TOKENIZER)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        missing = [package for package, module in SENTENCEPIECE.items() if not _is_installed(module)]
        pieces = sorted(file.name for file in folder.glob("*.model"))
        if missing and pieces and not (folder / "tokenizer.json").exists():
            why = f"{pieces[0]} needs a package: pip install {' '.join(missing)}"
            raise UserError(f"{name}: cannot load the tokenizer: {why}") from error
        raise UserError(f"{name}: cannot load the tokenizer ({first_line(error)})") from error
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):  # made from nothing, without a word
        raise UserError(f"{name}: the tokenizer has no vocabulary: its file (as tokenizer.json) is missing")
    return tokenizer


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False


def load_tokenizer(name: Place, revision: str | None = None) -> "PreTrainedTokenizerBase":
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
