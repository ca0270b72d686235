"""Loading and saving of models and tokenizers: safetensors and JSON only, no remote code.

A `Path` is a folder, which must be there; a text is a folder, or else a name on the hub, whose files are downloaded and
checked first (`minirlhf.hub`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.hub.configs import TOKENIZER, WEIGHTS, Place, check_weights, find_model, load_config
from minirlhf.models.checks import check_embeddings
from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import replace_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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

    from minirlhf.models.finite import first_bad
    from minirlhf.models.kernels import use_fast_kernels

    folder = find_model(name, revision, (*TOKENIZER, WEIGHTS))
    check_weights(folder, name)
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
    """`check_embeddings` of a model that is there."""
    check_embeddings(model.get_input_embeddings().num_embeddings, tokenizer, name)


def random_policy(name: Place, revision: str | None, overrides: dict, seed: int) -> "PreTrainedModel":
    """A policy with random weights: the config of `name`, changed by `overrides` (as {"n_layer": 2}).

    Raises:
        UserError: as `load_config`, or there is no model of such a config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from minirlhf.models.kernels import use_fast_kernels

    config = load_config(name, revision, overrides)
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise UserError(f"{name}: cannot make a model of its config ({first_line(error)})") from error
    use_fast_kernels(model)
    return model


def save_model(folder: Place, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write a model and its tokenizer as a whole folder. The model's own `generate` will end where they do here."""
    end_at(model, tokenizer)
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)


def end_at(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Have a policy's configs name the token that ends a response: of a chat, the end of a turn."""
    for config in filter(None, (model.config, model.generation_config)):
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        if tokenizer.eos_token_id not in ends:
            config.eos_token_id = tokenizer.eos_token_id
