"""The typed settings of a run: what `params.yaml` may hold, checked whole before any stage starts.

`params.yaml` shows the whole truth of what runs, so every key must be there: nothing is filled in silently.
No torch here, so that a mistyped setting shows within a second.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from minirlhf.errors import UserError
from minirlhf.files import read_text
from minirlhf.launch import check_command
from minirlhf.ppo.config import PPOConfig
from minirlhf.schema import check_keys, describe_error, narrow

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
EMBEDDED = "embedded"


class Section(BaseModel):
    """A group of settings: immutable, no unknown keys, no silent conversion, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataParams(Section):
    """Where posts and comparisons come from, how many are used, and how long they may be."""

    posts: Name  # "embedded", a folder, or the name of a data set on the hub; see minirlhf/data/sources.py
    posts_revision: str | None  # hub only: branch, tag or commit; null is the newest
    comparisons: Name
    comparisons_revision: str | None
    world_seed: Annotated[int, Field(ge=0)]  # of the embedded world: apart from the training seed
    max_posts: Count | None  # of the train split; null is all. The embedded world makes as many as these say.
    max_comparisons: Count | None
    max_validation: Count | None  # of posts, and as many comparisons
    max_test: Count | None
    max_prompt_tokens: Count  # a longer post is cut at its last paragraph, sentence or word that fits
    max_response_tokens: Annotated[int, Field(ge=2)]  # EOS included

    @model_validator(mode="after")
    def _embedded_world_is_whole(self) -> Self:
        if (self.posts == EMBEDDED) != (self.comparisons == EMBEDDED):
            raise ValueError("posts and comparisons are either both embedded or neither")
        if self.posts == EMBEDDED:
            for key in ("max_posts", "max_comparisons", "max_validation", "max_test"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} must be a number: the embedded world makes as many as it says")
        return self


class ModelParams(Section):
    """The model that training starts from, its tokenizer included."""

    base: Name  # a folder, or a name on the hub
    revision: str | None  # hub only
    # null: the base's own weights; {n_layer: 2, ...}: random ones, in the base's architecture with these changes
    random_weights: dict[str, int] | None


class TrainParams(Section):
    """What supervised fine-tuning and reward modelling have in common."""

    steps: Count  # optimizer steps
    batch_size: Count  # examples an optimizer step
    micro_batch_size: Count  # examples at a time on the device
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]  # before a cosine decay to 0
    log_every: Count  # steps between two training losses in the curves
    eval_every: Count  # steps between two losses on the validation split
    gradient_checkpointing: bool  # less memory, a third more time

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            sizes = self.batch_size, self.micro_batch_size
            raise ValueError("batch_size ({}) must be a multiple of micro_batch_size ({})".format(*sizes))
        return self


class SFTParams(TrainParams):
    """Supervised fine-tuning on the authors' summaries."""


class RewardParams(TrainParams):
    """The reward model: trained here, or pretrained and used as it is."""

    base: Name | None  # what to train it from, an encoder or a decoder: folder or hub name; null: the SFT model
    pretrained: Name | None  # in the place of training: a sequence classifier, folder or hub name
    revision: str | None  # of base or pretrained, hub only
    # prompt and response as one text, or as question and answer; null: concat for a decoder, pair for an encoder
    format: Literal["concat", "pair"] | None
    candidates: Annotated[int, Field(ge=0)]  # SFT samples a post that annotators compare; embedded world only
    candidate_posts: Count  # posts of the train split they are sampled for
    candidate_temperature: Positive

    @model_validator(mode="after")
    def _format_fits(self) -> Self:
        if self.base is not None and self.pretrained is not None:
            raise ValueError("base (train from it) and pretrained (use it as it is) are both set; one must be null")
        if self.base is None and self.pretrained is None and self.format == "pair":
            raise ValueError("format must be concat or null where the reward model is trained from the SFT model")
        return self


class BaselineParams(Section):
    """What the algorithms that TRL trains in the place of PPO have in common (minirlhf/baselines)."""

    episodes: Count  # responses sampled in the whole run, of DPO the comparisons seen; a multiple of batch_size
    batch_size: Count  # of them an update
    micro_batch_size: Count  # of them at a time on the device: memory and speed only
    beta: Positive  # how hard the policy is held to the SFT model; not the same scale in each, see docs/baselines.md
    learning_rate: Positive  # of AdamW, falling to 0 over the run

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        for whole, part in (("episodes", "batch_size"), ("batch_size", "micro_batch_size")):
            if getattr(self, whole) % getattr(self, part):
                sizes = getattr(self, whole), getattr(self, part)
                raise ValueError(f"{whole} ({sizes[0]}) must be a multiple of {part} ({sizes[1]})")
        return self

    @property
    def updates(self) -> int:
        """Batches in the run."""
        return self.episodes // self.batch_size


class OnlineParams(BaselineParams):
    """Algorithms that learn from their own responses, several to a prompt, each compared with the others of its prompt.

    They are sampled and scored as PPO's are: by temperature, max_new_tokens and missing_eos_penalty of `ppo`.
    """

    num_generations: Annotated[int, Field(ge=2)]  # responses to a prompt; divides batch_size
    num_iterations: Count  # optimizer steps on the responses of an update

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.batch_size % self.num_generations:
            sizes = self.num_generations, self.batch_size
            raise ValueError("num_generations ({}) must divide batch_size ({})".format(*sizes))
        return self


class RLOOParams(OnlineParams):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740)."""


class GRPOParams(OnlineParams):
    """Group-relative policy optimization (Shao et al. 2024, arXiv 2402.03300)."""


class DPOParams(BaselineParams):
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): comparisons in the place of a reward."""


class Judge(Section):
    """A judge of summaries other than the reward that PPO was trained on; see docs/evaluation.md."""

    @field_validator("name", check_fields=False)
    @classmethod
    def _name_is_its_own(cls, name: str) -> str:
        if name in ("gold", "training reward"):
            raise ValueError(f"{name!r} is what results call another judge; a folder can be written ./{name}")
        return name


class RewardModelJudge(Judge):
    """A second reward model."""

    kind: Literal["reward_model"]
    name: Name  # a folder or a hub name
    revision: str | None  # hub only
    format: Literal["concat", "pair"] | None  # as reward.format


class FunctionJudge(Judge):
    """A function that scores summaries, or one that compares two."""

    kind: Literal["function", "pairwise_function"]
    name: Name  # path/to/file.py:function


class EndpointJudge(Judge):
    """A language model behind an OpenAI-compatible chat endpoint. Its key is in the environment, never here."""

    kind: Literal["endpoint"]
    name: Name  # of the model there
    url: str  # base, as https://api.openai.com/v1
    max_posts: Count  # the first ones of the test split: six requests each
    timeout: Positive  # seconds for one request

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#") and "@" not in parts.netloc
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            # Without showing the url, which may hold a password.
            raise ValueError("expected http:// or https://, a host and a path, without user, password, ? or #")
        return url


JudgeParams = Annotated[RewardModelJudge | FunctionJudge | EndpointJudge, Field(discriminator="kind")]


class EvaluateParams(Section):
    """The comparison of policies on held-out posts."""

    batch_size: Count  # summaries generated or scored at a time
    bootstrap: Count  # resamples behind each 95% interval
    judge: JudgeParams | None  # null: the gold judge of the embedded world; elsewhere the training reward itself
    best_of_n: Count  # the largest n of the frontier's best-of-n; 1: none
    frontier_posts: Count  # of the test split, for the frontier


class Params(Section):
    """Everything that `params.yaml` holds."""

    seed: Seed
    ppo_seed: Seed | None  # of PPO alone; null: seed
    # what runs the scripts of sft, reward and ppo: python, or a launcher of several processes; see docs/several_gpus.md
    launch: Annotated[str, AfterValidator(check_command)]
    threads: Count  # of the CPU: other counts give other last bits
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["fp32", "bf16"]
    resume_minutes: Annotated[float, Field(ge=0)]  # between resume points of sft, reward and ppo; changes no result
    tensorboard: bool  # also write the curves for TensorBoard; changes no result
    data: DataParams
    model: ModelParams
    sft: SFTParams
    reward: RewardParams
    algorithm: Literal["ppo", "rloo", "grpo", "dpo"]  # who aligns the SFT model, by the settings of its own section
    ppo: PPOConfig  # its temperature, max_new_tokens and missing_eos_penalty hold for all of them, and for evaluate
    rloo: RLOOParams
    grpo: GRPOParams
    dpo: DPOParams
    evaluate: EvaluateParams

    @property
    def aligner(self) -> PPOConfig | BaselineParams:
        """The settings of the algorithm that is used."""
        return getattr(self, self.algorithm)

    @model_validator(mode="after")
    def _candidates_need_annotators(self) -> Self:
        if self.reward.candidates and self.data.posts != EMBEDDED:
            raise ValueError("reward.candidates must be 0: only the embedded world has annotators for them")
        return self


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises UserError with one line that names the setting and what it accepts:
        ppo.kl_coef: expected a number >= 0, got 'abc' (params.yaml)
        ppo.klcoef: unknown setting; did you mean kl_coef? (params.yaml)
    """
    return parse_params(read_text(path), str(path))


def parse_params(text: str, where: str) -> Params:
    """The params in a YAML text; `where` names it in errors."""
    import json

    settings = _parse_yaml(text, where)
    schema = Params.model_json_schema()
    try:
        schema = narrow(schema, settings, schema)
        check_keys(settings, schema)
        # As JSON, so that a list may become a tuple while numbers and texts stay what they are.
        return Params.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        raise UserError(f"{describe_error(error.errors()[0], schema)} ({where})") from None
    except UserError as error:
        raise UserError(f"{error} ({where})") from None
    except (ValueError, TypeError, RecursionError) as error:  # a set, a date, a mapping inside itself
        raise UserError(f"{where}: holds what is no setting: {error}") from None


def _parse_yaml(text: str, where: str) -> Any:
    """YAML 1.2, as DVC reads it: 3e-6 is a number, and a key that stands twice is an error."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not YAML: {problem or error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: not YAML that can be read: {error}") from None
