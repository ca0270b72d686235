"""Make the networks of a run from what the user gave: models, folders or hub names."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from minirlhf.hub.configs import load_config, read_tokenizer
from minirlhf.models.adapters import add_adapters, plain
from minirlhf.models.kernels import use_fast_kernels
from minirlhf.models.loading import check_vocabulary, load_policy, load_reward_model
from minirlhf.models.prefixes import shares_prefixes
from minirlhf.models.trunk import TrunkAndHead, checkpointed_layers, width
from minirlhf.ppo.model import Models, ValueHead
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json
from minirlhf.runtime.memory import BatchSize
from minirlhf.settings.ppo import PPOConfig

if TYPE_CHECKING:
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

    The reference is a frozen copy of the policy as given, or, with LoRA, the policy without its adapters. A model
    that already carries an adapter has it merged into its weights first, so the reference keeps it (TRL #4723); one
    in half precision is put into fp32.

    Raises UserError: no such model, a critic of another vocabulary, or what `models.adapters` refuses.
    """
    if config.critic == "shared" and critic_init is not None:
        raise UserError("critic_init: only a separate critic has a network to initialise (set critic: separate)")
    given = policy
    policy = load_policy(policy) if isinstance(policy, (str, Path)) else plain(policy, "policy")
    _place(policy.requires_grad_(True), device)
    check_vocabulary(policy, tokenizer, policy.name_or_path or "policy")
    if reference is not None:
        if reference is given:  # its adapters are the policy's weights by now
            reference = copy.deepcopy(policy)
        else:
            reference = load_policy(reference) if isinstance(reference, (str, Path)) else _copy(reference, "reference")
    elif config.lora is None:
        reference = copy.deepcopy(policy)
    critic_trunk, value_head = _build_critic(config, policy, tokenizer, critic_init)
    adapter = None
    if config.lora is not None:
        adapter = add_adapters(policy, config.lora, seed)
        if critic_trunk is not None:
            critic_trunk = add_adapters(critic_trunk, config.lora, seed, whole=False)
    for model in (policy, reference, critic_trunk):
        if model is not None:
            use_fast_kernels(model)
            _place(model, device)
    if reference is not None:
        reference.requires_grad_(False)
    parts = TrunkAndHead(policy)
    # Activations that are computed again would need keys and values that are gone by then.
    shares = not config.gradient_checkpointing and (critic_trunk is None or shares_prefixes(critic_trunk))
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
        shares=shares,
    )


def critic_start(config: PPOConfig, reward: Path, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """`critic_init` of a run of the pipeline, with the folder of its reward model.

    A separate critic begins as the reward model (Huang et al. 2024) where that was trained here and reads the tokens of
    the policy, as one from the SFT model does. Else, as the SFT model: None.
    """
    if config.critic == "shared" or not (reward / "config.json").exists():
        return None
    return str(reward) if _reads_tokens_of(str(reward), tokenizer) else None


def _place(model: nn.Module, device: torch.device) -> None:
    model.to(device).eval()


def _build_critic(
    config: PPOConfig,
    policy: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    critic_init: "ModelOrName | None",
) -> tuple[nn.Module | None, ValueHead]:
    """The separate critic's trunk, if any, and the value head."""
    if config.critic == "shared":
        return None, ValueHead(width(policy.base_model))
    if critic_init is None:
        return copy.deepcopy(policy.base_model), ValueHead(width(policy.base_model))
    mean, scale = 0.0, 1.0
    if isinstance(critic_init, (str, Path)):
        if not _reads_tokens_of(str(critic_init), tokenizer):
            raise UserError(
                f"critic_init: the tokenizer of {critic_init} is not the policy's: a critic reads the policy's tokens"
            )
        normalisation = Path(critic_init) / "reward.json"
        if normalisation.exists():
            settings = read_json(normalisation)
            mean, scale = settings.get("mean", 0.0), settings.get("scale", 1.0)
        critic_init = _load_critic(str(critic_init))
    else:
        critic_init = _copy(critic_init, "critic_init")
    trunk = critic_init.base_model.requires_grad_(True)
    head = ValueHead(width(trunk))
    score = getattr(critic_init, "score", None)
    if isinstance(score, nn.Linear) and score.out_features == 1:
        # A reward model's head gives (score - mean) / scale, which is what the value of a last state should be.
        with torch.no_grad():
            head.weight.copy_(score.weight / scale)
            head.bias.fill_(-mean / scale)
    return trunk, head


def _copy(model: "PreTrainedModel", what: str) -> "PreTrainedModel":
    """A model of the user's own, as `plain` makes it; theirs stays what it is."""
    return plain(copy.deepcopy(model), what)


def _load_critic(name: str) -> "PreTrainedModel":
    architectures = load_config(name).architectures or [""]
    load = load_reward_model if "SequenceClassification" in architectures[0] else load_policy
    return load(name)


def _reads_tokens_of(name: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the model of a folder or name has the same vocabulary."""
    return read_tokenizer(name).get_vocab() == tokenizer.get_vocab()
