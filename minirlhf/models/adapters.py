"""Low-rank adapters: put into a model that is to be trained, and taken into the weights of one that comes with some."""

import warnings
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import nn

from minirlhf.runtime.errors import UserError, first_line

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from minirlhf.settings.ppo import LoRAConfig

HALF = (torch.float16, torch.bfloat16)
FULL = (torch.float32, torch.float64)


def plain(model: "PreTrainedModel | PeftModel", what: str) -> "PreTrainedModel":
    """The model that another function made, as it can be trained: in place, in fp32 at least, adapters merged.

    Half precision would round away most of what an optimizer adds; `precision: bf16` computes in it under autocast.

    Args:
        what: what an error calls the model.

    Raises:
        UserError: quantized weights, or adapters that cannot be merged.
    """
    kinds = {weights.dtype for weights in model.parameters()}
    if getattr(model, "is_quantized", False) or kinds - {*HALF, *FULL}:
        raise UserError(f"{what}: its weights are quantized; give it in fp32, bf16 or fp16")
    if kinds & set(HALF):
        model = model.float()
    if hasattr(model, "merge_and_unload"):
        _untie_adapted(model)
        model = model.merge_and_unload()
    if getattr(model, "peft_config", None) or getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(f"{what}: it carries an adapter that is not merged: give peft_model.merge_and_unload()")
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        model.config.get_text_config().tie_word_embeddings = False  # or they would be one after saving and loading
    return model


def _untie_adapted(model: "PeftModel") -> None:
    """Give an adapted layer that shares its weights with another its own: merged, both would get the adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m.get_base_layer() for m in model.modules() if isinstance(m, BaseTunerLayer)]
    uses = _uses(model)
    for layer in layers:
        if uses[id(getattr(layer, "weight", None))] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone())


def _uses(model: nn.Module) -> Counter[int]:
    """In how many modules each weight is, by its id."""
    return Counter(id(weights) for module in model.modules() for weights in module.parameters(recurse=False))


def add_adapters(model: nn.Module, lora: "LoRAConfig", seed: int, whole: bool = True) -> "PeftModel":
    """Inject LoRA adapters into a model, in place, and freeze the rest; the peft model around it.

    Args:
        whole: every name in `target_modules` must be of this model; False: one of them, as of a trunk without its head.

    Raises:
        UserError: the model has no such layers, or shares their weights with others (tied embeddings).
    """
    import peft

    kind, uses = type(model).__name__, _uses(model)
    of = {name: id(getattr(module, "weight", None)) for name, module in model.named_modules()}
    names = lora.target_modules or ()
    unknown = [name for name in names if not any(f".{layer}".endswith(f".{name}") for layer in of)]
    if unknown and (whole or len(unknown) == len(names)):
        raise UserError(f"ppo.lora.target_modules: {kind} has no layer {unknown[0]}; {_offer(model)}")
    options = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.target_modules, lora_dropout=0.0)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft sets what it warns about (fan_in_fan_out for GPT-2) right itself
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, options)
        except ValueError as error:  # it knows none for the architecture, or a layer of another kind is named
            raise UserError(f"ppo.lora.target_modules: {kind}: {first_line(error)[:160]}; {_offer(model)}") from error
    for name in adapted.base_model.targeted_module_names:
        if uses[of[name]] > 1:
            last = name.rpartition(".")[2]
            raise UserError(
                f"ppo.lora.target_modules: {last} shares its weights with another layer of {kind}; leave it out"
            )
    return adapted


def _offer(model: nn.Module) -> str:
    """The layers that may be named."""
    from transformers.pytorch_utils import Conv1D

    kinds, uses = (nn.Linear, nn.Embedding, Conv1D), _uses(model)
    named = ((name, m) for name, m in model.named_modules() if isinstance(m, kinds) and uses[id(m.weight)] == 1)
    return f"it has {', '.join(dict.fromkeys(name.rpartition('.')[2] for name, _ in named))}"
