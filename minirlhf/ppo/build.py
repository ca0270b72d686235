"""Make the networks of a run from what the user gave: models, folders or hub names."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from minirlhf.hub.configs import load_config, read_tokenizer
from minirlhf.models.kernels import use_fast_kernels
from minirlhf.models.loading import check_vocabulary, load_policy, load_reward_model
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.ppo.model import Models, ValueHead
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json
from minirlhf.runtime.memory import BatchSize
from minirlhf.settings.ppo import LoRAConfig, PPOConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    ModelOrName = PreTrainedModel | str | Path

# Where even one episode at a time is too much.
LESS_MEMORY = "gradient_checkpointing, precision bf16, lora, fewer max_new_tokens, shorter prompts, or a smaller model"


def build_models(
    config: PPOConfig,
    policy: "ModelOrName",
    tokenizer: "PreTrainedTokenizerBase",
    reference: "ModelOrName | None",
    critic_init: "ModelOrName | None",
    device: torch.device,
    precision: str,
    seed: int,
) -> Models:
    """The networks of a run, on the device, with dropout off.

    The reference is a frozen copy of the policy as given, or, with LoRA, the policy without its adapters. A policy
    that already carries an adapter has it merged into its weights first, so the reference keeps it (TRL #4723).

    Raises UserError: no such model, or a critic of another vocabulary.
    """
    if config.critic == "shared" and critic_init is not None:
        raise UserError("critic_init: only a separate critic has a network to initialise (set critic: separate)")
    policy = load_policy(policy) if isinstance(policy, (str, Path)) else policy
    merge = getattr(policy, "merge_and_unload", None)
    policy = policy if merge is None else merge()
    _place(policy.requires_grad_(True), device)
    check_vocabulary(policy, tokenizer, policy.name_or_path or "policy")
    if reference is not None:
        reference = load_policy(reference) if isinstance(reference, (str, Path)) else reference
        reference = copy.deepcopy(reference) if reference is policy else reference
    elif config.lora is None:
        reference = copy.deepcopy(policy)
    critic_trunk, value_head = _build_critic(config, policy, tokenizer, critic_init)
    adapter = None
    if config.lora is not None:
        adapter = add_adapters(policy, config.lora, seed)
        critic_trunk = add_adapters(critic_trunk, config.lora, seed) if critic_trunk is not None else None
    for model in (policy, reference, critic_trunk):
        if model is not None:
            use_fast_kernels(model)
            _place(model, device)
    if reference is not None:
        reference.requires_grad_(False)
    parts = TrunkAndHead(policy)
    trained = [policy] if critic_trunk is None else [policy, critic_trunk]
    return Models(
        policy=parts,
        value_head=value_head.to(device),
        critic_trunk=critic_trunk,
        reference=parts if reference is None else TrunkAndHead(reference),
        adapter=adapter,
        reference_is_base=reference is None,
        precision=precision,
        micro_batch=BatchSize(config.micro_batch_size, "ppo: micro_batch_size", LESS_MEMORY),
        rollout_batch=BatchSize(config.rollout_batch_size, "ppo: rollout_batch_size", LESS_MEMORY),
        checkpointed=checkpointed_layers(trained) if config.gradient_checkpointing else [],
    )


def _place(model: nn.Module, device: torch.device) -> None:
    model.to(device).eval()


def checkpointed_layers(models: Sequence[nn.Module]) -> list[GradientCheckpointingLayer]:
    """The layers that can compute their activations again in the backward pass."""
    modules = [module for model in models for module in model.modules()]
    layers = [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"ppo.gradient_checkpointing: {type(models[0]).__name__} cannot; set it to false")
    return layers


def add_adapters(model: nn.Module, lora: LoRAConfig, seed: int) -> "PeftModel":
    """Inject LoRA adapters into a model, in place, and freeze the rest; the peft model around it."""
    import peft

    # pyrefly: ignore[bad-argument-type]  # peft calls alpha an int, and divides it by the rank
    options = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.target_modules, lora_dropout=0.0)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft sets what it warns about (fan_in_fan_out for GPT-2) right itself
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, options)
    assert isinstance(adapted, peft.PeftModel)  # and not of adapters of several kinds
    return adapted


def _build_critic(
    config: PPOConfig,
    policy: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    critic_init: "ModelOrName | None",
) -> tuple[nn.Module | None, ValueHead]:
    """The separate critic's trunk, if any, and the value head."""
    hidden_size = policy.config.get_text_config().hidden_size
    if config.critic == "shared":
        return None, ValueHead(hidden_size)
    if critic_init is None:
        return copy.deepcopy(policy.base_model), ValueHead(hidden_size)
    mean, scale = 0.0, 1.0
    if isinstance(critic_init, (str, Path)):
        _check_same_tokenizer(str(critic_init), tokenizer)
        normalisation = Path(critic_init) / "reward.json"
        if normalisation.exists():
            settings = read_json(normalisation)
            mean, scale = settings.get("mean", 0.0), settings.get("scale", 1.0)
        critic_init = _load_critic(str(critic_init))
    else:
        critic_init = copy.deepcopy(critic_init)
    trunk = critic_init.base_model.requires_grad_(True)
    head = ValueHead(critic_init.config.hidden_size)
    score = getattr(critic_init, "score", None)
    if isinstance(score, nn.Linear) and score.out_features == 1:
        # A reward model's head gives (score - mean) / scale, which is what the value of a last state should be.
        with torch.no_grad():
            head.weight.copy_(score.weight / scale)
            head.bias.fill_(-mean / scale)
    return trunk, head


def _load_critic(name: str) -> "PreTrainedModel":
    architectures = load_config(name).architectures or [""]
    load = load_reward_model if "SequenceClassification" in architectures[0] else load_policy
    return load(name)


def _check_same_tokenizer(name: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    if read_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise UserError(f"critic_init: the tokenizer of {name} is not the policy's: a critic reads the policy's tokens")
