"""The typed settings of a run: what `params.yaml` may hold, checked whole before any stage starts.

`params.yaml` shows the whole truth of what runs, so every key must be there: nothing is filled in silently.
No torch here, so that a mistyped setting shows within a second.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from minirlhf.runtime.arithmetic import Arithmetic
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_text
from minirlhf.runtime.launch import check_command
from minirlhf.runtime.trackers import Name as Tracker
from minirlhf.runtime.trackers import check_installed
from minirlhf.settings.algorithms import BaselineParams, DPOParams, GRPOParams, RLOOParams
from minirlhf.settings.data import EMBEDDED, DataParams, ModelParams
from minirlhf.settings.evaluation import EvaluateParams
from minirlhf.settings.ppo import PPOConfig
from minirlhf.settings.schema import check_keys, describe_error, narrow
from minirlhf.settings.section import Count, Section, Seed
from minirlhf.settings.training import CollectParams, FeedbackParams, RewardParams, SFTParams


class Params(Section):
    """Everything that `params.yaml` holds."""

    seed: Seed
    ppo_seed: Seed | None  # of PPO alone; null: seed
    # what runs the scripts of sft, reward and ppo: python, or a launcher of several processes; see docs/several_gpus.md
    launch: Annotated[str, AfterValidator(check_command)]
    threads: Count  # of the CPU: other counts give other last bits
    arithmetic: Arithmetic  # of the CPU: the same bytes on every x86-64, or as fast as this one can
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["fp32", "bf16"]
    resume_minutes: Annotated[float, Field(ge=0)]  # between resume points of sft, reward and ppo; changes no result
    trackers: Annotated[tuple[Tracker, ...], AfterValidator(check_installed)]  # of sft, reward, ppo; change no result
    data: DataParams
    model: ModelParams
    sft: SFTParams
    collect: CollectParams
    feedback: FeedbackParams
    reward: RewardParams
    algorithm: Literal["ppo", "rloo", "grpo", "dpo"]  # who aligns the SFT model, by the settings of its own section
    ppo: PPOConfig  # its temperature, max_new_tokens, missing_eos_penalty and lora hold for all of them
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
        simulated = self.collect.annotators == "simulated" and self.collect.candidates
        if simulated and self.data.posts != EMBEDDED:
            raise ValueError("collect.annotators must be people: only the embedded world has simulated ones")
        return self

    @model_validator(mode="after")
    def _rounds_need_annotators(self) -> Self:
        """People's votes must not hang on a policy that each new vote would train anew, and so are collected apart."""
        if self.feedback.rounds and self.collect.annotators == "people":
            how = "copy the aligned policy and name the copy in collect.policy (docs/people.md)"
            raise ValueError(f"feedback.rounds must be [] where people compare: for their next round {how}")
        if self.feedback.rounds and not self.collect.candidates:
            raise ValueError(
                "feedback.rounds must be [] where nobody compares what a policy writes (collect.candidates: 0)"
            )
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
