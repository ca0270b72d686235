"""Loading and saving of models and tokenizers: safetensors and JSON only, no remote code.

A `Path` is a folder, which must be there; a text is a folder, or else a name on the hub, whose files are downloaded and
checked first (`minirlhf.hub`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.data.locate import HUB_NAME
from minirlhf.errors import UserError, first_line
from minirlhf.files import read_json, replace_folder
from minirlhf.hub import download, resolve_commit

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Place = str | Path
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


def find_model(place: Place, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder of a model's files, checked: the one that is named, or of the hub's files at a revision.

    Raises:
        UserError: there is no such folder or hub name, `hub.download` cannot get it, or `check_files` refuses it.
    """
    folder = Path(place)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{place}: expected a folder, got a file")
    if not folder.is_dir():
        if isinstance(place, Path) or not HUB_NAME.fullmatch(place):
            raise UserError(f"{place}: no such folder")
        folder = download(place, resolve_commit(place, revision, "model"), "model", patterns)
    check_files(folder)
    return folder


def check_files(folder: Path) -> None:
    """Raise UserError for a model's folder with a file that is damaged, or that asks for code; it is named.

    A bit that flipped within the weights does not show here: `load_policy` sees what it turns to NaN or infinity.
    """
    from safetensors import safe_open

    for file in sorted(folder.glob("*.json")):
        content = read_json(file)
        if isinstance(content, dict) and content.get("auto_map"):
            raise UserError(f"{file}: auto_map asks for code that came with the model, and none is run")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as weights:
                names = list(weights.keys())
        except Exception as error:
            raise UserError(f"{file}: cannot be read ({first_line(error)})") from error
        if not names:
            raise UserError(f"{file}: there are no weights in it")


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
    for key, value in (overrides or {}).items():
        if not hasattr(config, key):
            raise UserError(f"model.random_weights.{key}: not a setting of {config.model_type}")
        setattr(config, key, value)
    return config


def read_tokenizer(name: Place, revision: str | None = None) -> "PreTrainedTokenizerBase":
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


def load_policy(name: Place, revision: str | None = None) -> "PreTrainedModel":
    """The causal language model of a folder or a hub name, in fp32, with dropout as its config says.

    Raises:
        UserError: there is no such model, no weights in safetensors format, they do not fit the config, or they are
            not all finite numbers.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, name, revision)


def load_reward_model(name: Place, revision: str | None = None) -> "PreTrainedModel":
    """A sequence-classification model with one label, in fp32.

    Raises:
        UserError: as `load_policy`, or the model has more labels.
    """
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, name, revision)
    if model.config.num_labels != 1:
        raise UserError(f"{name}: it has {model.config.num_labels} labels; a reward model has 1")
    return model


def new_reward_model(name: Place, revision: str | None = None) -> "PreTrainedModel":
    """The trunk of a language model, decoder or encoder, under a head of one label.

    The head is drawn from torch's random state where there is none of one label: a head that predicts tokens, or has
    more labels, is dropped. So is a pooler where there is none, which comes between an encoder and its head.

    Raises UserError as `load_policy`.
    """
    from transformers import AutoModelForSequenceClassification

    options = {"num_labels": 1, "ignore_mismatched_sizes": True}  # those of the trunk are refused nevertheless
    return _load(AutoModelForSequenceClassification, name, revision, new_head=True, **options)


def _is_of_head(key: str, model: "PreTrainedModel") -> bool:
    """Whether a classifier's weight is of its head, or of the pooler before it, which some trunks hold."""
    trunk = f"{model.base_model_prefix}."
    return not key.startswith(trunk) or key.startswith(f"{trunk}pooler.")


def _load(auto_class, name: Place, revision: str | None, new_head: bool = False, **options) -> "PreTrainedModel":
    """A model all of whose weights are there, those of a new head apart, and finite."""
    import torch

    from minirlhf.finite import first_bad
    from minirlhf.kernels import use_fast_kernels

    folder = find_model(name, revision, (*TOKENIZER, WEIGHTS))
    if not any(folder.glob(WEIGHTS)):
        hint = "" if folder == Path(name) else "; a conversion may wait as a pull request: try revision refs/pr/1"
        raise UserError(f"{name}: no weights in safetensors format there ({WEIGHTS}), and no other is read{hint}")
    options |= {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    try:
        model, found = auto_class.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        raise UserError(f"{name}: cannot load the model ({first_line(error)})") from error
    unfit = {key for key, *_ in found["mismatched_keys"]}
    # What is missing or does not fit was drawn at random.
    drawn = sorted(key for key in {*found["missing_keys"], *unfit} if not (new_head and _is_of_head(key, model)))
    if drawn and drawn[0] in unfit:
        raise UserError(f"{name}: cannot load the model (the weights {drawn[0]} do not fit its config)")
    if drawn:
        raise UserError(f"{name}: no weights {drawn[0]}, which a {type(model).__name__} has")
    bad = first_bad(model.named_parameters())
    if bad is not None:
        raise UserError(f"{name}: NaN or infinity in the weights {bad}: damaged, or badly trained")
    ends = model.config.eos_token_id
    for token in ends if isinstance(ends, list) else [ends]:
        if token is not None and token >= model.get_input_embeddings().num_embeddings:
            raise UserError(f"{name}: config.json: eos_token_id {token} has no embedding")
    use_fast_kernels(model)
    return model


def check_vocabulary(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", name: Place) -> None:
    """Raise UserError unless the model has an embedding for every token: it may have more, as many do."""
    embeddings, tokens = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values()) + 1
    if tokens > embeddings:
        raise UserError(f"{name}: {embeddings} embeddings are too few for the tokenizer's {tokens} tokens")


def random_policy(name: Place, revision: str | None, overrides: dict, seed: int) -> "PreTrainedModel":
    """A policy with random weights: the config of `name`, changed by `overrides` (as {"n_layer": 2}).

    Raises:
        UserError: as `load_config`, or there is no model of such a config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from minirlhf.kernels import use_fast_kernels

    config = load_config(name, revision, overrides)
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise UserError(f"{name}: cannot make a model of its config ({first_line(error)})") from error
    use_fast_kernels(model)
    return model


def save_model(folder: Place, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write a model and its tokenizer as a whole folder."""
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
