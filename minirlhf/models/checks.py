"""What can be known of a run's models from their configs, tokenizers and the settings: said before anything is trained.

The stage `prepare` checks the whole run. A training stage checks it again: what follows it may have been set since, and
is to be said before an hour of training, not after.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.hub import chat
from minirlhf.hub.configs import check_weights, load_config, load_tokenizer, read_tokenizer
from minirlhf.hub.functions import load_function
from minirlhf.hub.locate import locate, model_place
from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import read_object
from minirlhf.runtime.launch import rank

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from minirlhf.settings.evaluation import JudgeParams
    from minirlhf.settings.params import Params


def check_run(params: "Params", sources: Path) -> None:
    """Raise UserError for what some stage would refuse of the models that the params name.

    Args:
        sources: folder of the notes of stages/source.py, which say at which commit a hub name is.
    """
    base = load_config(model_place(params.model.base), _commit(sources, "base"), params.model.random_weights)
    _check_policy(params, base, load_tokenizer(model_place(params.model.base), _commit(sources, "base")))
    key = next((key for key in ("base", "pretrained") if getattr(params.reward, key) is not None), None)
    if key is None:
        _check_classifier(base, "model.base", params.model.base, params.reward.gradient_checkpointing)
    else:
        name = getattr(params.reward, key)
        scorer = _Scorer(f"reward.{key}", name, _commit(sources, "reward"), params.reward.format)
        scorer.check(params, pretrained=key == "pretrained")
    check_judge(params)


def check_judge(params: "Params") -> None:
    """Raise UserError for a judge that the params name and that cannot judge; of an endpoint one question is asked."""
    judge: JudgeParams | None = params.evaluate.judge
    if judge is None or judge.kind == "people" or rank() != 0:
        return
    if judge.kind == "reward_model":
        _Scorer("evaluate.judge.name", judge.name, judge.revision, judge.format).check(params, pretrained=True)
    elif judge.kind == "endpoint":
        chat.check(judge.url, judge.name, judge.timeout)
    else:
        load_function(judge.name)


def check_embeddings(embeddings: int, tokenizer: "PreTrainedTokenizerBase", name: str | Path) -> None:
    """Raise UserError unless there is an embedding for every token: there may be more, as many models have."""
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > embeddings:
        raise UserError(f"{name}: {embeddings} embeddings are too few for the tokenizer's {tokens} tokens")


def _commit(sources: Path, name: str) -> str | None:
    return read_object(sources / f"{name}.json").get("commit")


def _responses(params: "Params") -> dict[str, int]:
    """The longest responses, by the setting that says so."""
    return {
        "data.max_response_tokens": params.data.max_response_tokens,
        "ppo.max_new_tokens": params.ppo.max_new_tokens,
    }


def _check_policy(params: "Params", config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise UserError for a base that cannot be a policy, or not with the lengths, LoRA and checkpointing asked for."""
    from transformers import AutoModelForCausalLM

    from minirlhf.models.adapters import add_adapters
    from minirlhf.models.trunk import checkpointed_layers

    name = params.model.base
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UserError(f"model.base: {name} ({config.model_type}): transformers has no causal language model of it")
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    for setting, response in _responses(params).items():
        prompt = params.data.max_prompt_tokens
        if positions is not None and prompt + response > positions:
            lengths = f"data.max_prompt_tokens ({prompt}) and {setting} ({response})"
            raise UserError(f"{lengths} together exceed the {positions} positions of {name}")
    check_embeddings(config.get_text_config().vocab_size, tokenizer, name)
    policy = _empty(AutoModelForCausalLM, config, name)
    if params.sft.gradient_checkpointing and not policy.supports_gradient_checkpointing:
        raise UserError(f"sft.gradient_checkpointing: {type(policy).__name__} cannot; set it to false")
    if params.algorithm != "ppo":
        return
    if params.ppo.gradient_checkpointing:
        checkpointed_layers([policy])
    if params.ppo.lora is not None:
        add_adapters(policy, params.ppo.lora, params.seed)
        if params.ppo.critic == "separate":
            critic = _empty(AutoModelForCausalLM, config, name).base_model
            add_adapters(critic, params.ppo.lora, params.seed, whole=False)


def _check_classifier(config: "PreTrainedConfig", setting: str, name: str, checkpointing: bool) -> "PreTrainedModel":
    """The classifier of a config, without weights. UserError where there is none."""
    from transformers import AutoModelForSequenceClassification

    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UserError(
            f"{setting}: transformers has no sequence classifier of {name} ({config.model_type}), so it cannot score: "
            f"set reward.base or reward.pretrained to another model"
        )
    model = _empty(AutoModelForSequenceClassification, config, name)
    if checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(f"reward.gradient_checkpointing: {type(model).__name__} cannot; set it to false")
    return model


def _empty(auto_class, config: "PreTrainedConfig", name: str) -> "PreTrainedModel":
    """A model without memory for its weights, whatever its size."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return auto_class.from_config(config)
    except Exception as error:  # of a config that no model can be made of
        raise UserError(f"{name}: cannot make a model of its config ({first_line(error)})") from error


class _Scorer:
    """A model that is to score, as a setting names it."""

    def __init__(self, setting: str, name: str, commit: str | None, format: str | None):
        self.setting, self.name, self.format = setting, name, format
        place = model_place(name)
        self.config, self.tokenizer = load_config(place, commit), read_tokenizer(place, commit)

    def check(self, params: "Params", pretrained: bool) -> None:
        """Raise UserError where it cannot score; one that is trained gets its head then."""
        if (folder := locate(self.name)) is not None:  # a hub's weights are not fetched before they are needed
            check_weights(folder, folder)
        checkpointing = params.reward.gradient_checkpointing and not pretrained
        model = _check_classifier(self.config, self.setting, self.name, checkpointing)
        made = (self.config.architectures or [""])[0]
        if pretrained and made.endswith(("ForCausalLM", "LMHeadModel", "ForMaskedLM")):
            raise UserError(
                f"{self.setting}: {self.name} is a {made}, which gives no score; reward.base trains one from it"
            )
        if pretrained and self.config.num_labels != 1:
            raise UserError(f"{self.name}: it has {self.config.num_labels} labels; a reward model has 1")
        check_embeddings(self.config.get_text_config().vocab_size, self.tokenizer, self.name)
        concat = self.format == "concat" or (self.format is None and hasattr(model, "score"))
        if concat and self.tokenizer.eos_token_id is None:
            raise UserError(f"{self.name}: its tokenizer has no EOS, which the format 'concat' needs; try 'pair'")
        positions = getattr(self.config.get_text_config(), "max_position_embeddings", None) or 10**9
        positions = min(positions, self.tokenizer.model_max_length)
        for setting, response in _responses(params).items():
            if response >= positions:
                raise UserError(f"{setting} ({response}) is too long for the {positions} positions of {self.name}")
