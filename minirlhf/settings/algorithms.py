"""Settings of the algorithms that stand beside PPO, whose own are in minirlhf/settings/ppo.py."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from minirlhf.settings.section import Count, Positive, Section


class BaselineParams(Section):
    """What the algorithms that TRL trains in the place of PPO have in common (minirlhf/baselines).

    `ppo.lora` holds for them, too.
    """

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
