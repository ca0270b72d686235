"""Settings of PPO, each meaning one thing. Needs no torch, so that params are checked before anything heavy loads.

Sizes count episodes over all processes. An episode is one prompt and one response. An update samples `batch_size`
episodes, then takes `ppo_epochs x minibatches` optimizer steps on them.

Defaults are those of Huang et al. 2024 (arXiv 2403.17031) where it gives one, with a batch that fits a laptop.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LoRAConfig(BaseModel):
    """Low-rank adapters (Hu et al. 2021) on the policy, and on a separate critic's trunk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: float = Field(32.0, gt=0, description="adapters are scaled by alpha / rank")
    target_modules: list[str] | None = Field(
        None, description="names of the layers that get an adapter; null: peft's choice for the architecture"
    )


class PPOConfig(BaseModel):
    """Settings of `minirlhf.ppo.PPOTrainer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # How much
    episodes: int = Field(10_240, ge=1, description="episodes of the whole run; a multiple of batch_size")
    batch_size: int = Field(64, ge=2, description="episodes sampled for one update, over all processes")
    samples_per_prompt: int = Field(
        1,
        ge=1,
        description="episodes in a row with the same prompt, which then runs once; divides batch_size / minibatches",
    )
    ppo_epochs: int = Field(4, ge=1, description="passes over the episodes of an update")
    minibatches: int = Field(1, ge=1, description="optimizer steps a pass; divides batch_size")
    micro_batch_size: int = Field(
        16, ge=1, description="most episodes in one forward and backward pass; changes memory and speed only"
    )
    rollout_batch_size: int = Field(
        64, ge=1, description="most responses sampled at once; changes memory and speed only"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third more time to learn"
    )

    # Sampling
    temperature: float = Field(0.7, gt=0, description="of the softmax, in rollout and loss alike")
    max_new_tokens: int = Field(53, ge=1, description="longest response in tokens, EOS included")

    # Rewards
    kl_coef: float = Field(0.05, ge=0, description="weight of the KL penalty to the reference")
    kl_estimator: Literal["k1", "k3"] = Field(
        "k1",
        description="penalty a token: k1 = log ratio; k3 = exp(-log ratio) - 1 + log ratio, never negative",
    )
    adaptive_kl_target: float | None = Field(
        None, gt=0, description="adapt kl_coef towards this KL in nats a response (Ziegler 2019); null: fixed"
    )
    adaptive_kl_horizon: int = Field(10_000, ge=1, description="episodes over which kl_coef adapts")
    missing_eos_penalty: float = Field(
        1.0, ge=0, description="subtracted from the score of a response cut at max_new_tokens"
    )
    whiten_rewards: bool = Field(False, description="scale the rewards of a batch to variance 1, keeping their mean")

    # Advantages
    gamma: float = Field(1.0, gt=0, le=1, description="discount a token")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="lambda of generalized advantage estimation")
    leave_one_out: bool = Field(
        False,
        description="what an episode comes to counts minus the mean of the others with its prompt, as in RLOO; needs "
        "samples_per_prompt above 1",
    )
    whiten_advantages: bool = Field(True, description="advantages of the global batch to mean 0, variance 1")

    # Loss and optimizer
    clip_range: float = Field(0.2, gt=0, description="the probability ratio is clipped to 1 +- this")
    value_clip_range: float = Field(0.2, gt=0, description="a value is clipped to its value in the rollout +- this")
    value_coef: float = Field(0.1, ge=0, description="weight of the value loss")
    target_kl: float | None = Field(
        None,
        gt=0,
        description="end an update's passes early once the policy moved this far (nats a token); null: never",
    )
    learning_rate: float = Field(3e-6, gt=0, description="of Adam, at its peak")
    critic_learning_rate: float | None = Field(
        None, gt=0, description="of the value head, or of the separate critic; null: learning_rate"
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="how the learning rate falls over the run"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the optimizer steps over which the rate rises from 0")
    adam_epsilon: float = Field(1e-5, gt=0, description="epsilon of Adam")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")

    # Models
    critic: Literal["shared", "separate"] = Field(
        "shared", description="shared: a value head on the policy's trunk; separate: a network of its own"
    )
    lora: LoRAConfig | None = Field(None, description="train low-rank adapters instead of all weights; null: all")

    # Looking after the run
    eval_every: int = Field(0, ge=0, description="updates between evaluations on held-out prompts; 0: never")
    snapshot_every: int = Field(0, ge=0, description="updates between policies kept for analysis; 0: none")
    deliver: Literal["last", "best"] = Field(
        "last", description="the policy delivered: the last, or the best by held-out reward - kl_coef x KL"
    )
    kl_ceiling: float | None = Field(None, gt=0, description="stop the run at this KL in nats a response; null: never")
    entropy_floor: float | None = Field(
        None, gt=0, description="stop the run when entropy falls below, in nats a token; null: never"
    )
    identical_patience: int = Field(
        0, ge=0, description="stop the run after so many updates in a row with all responses equal; 0: never"
    )

    stop_on_alarm: bool = Field(
        False, description="stop the run where the early warning rings (docs/early_warning.md); it is said in any case"
    )

    @model_validator(mode="after")
    def _check(self) -> "PPOConfig":
        if self.episodes % self.batch_size:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of batch_size ({self.batch_size})")
        if self.batch_size % self.minibatches:
            raise ValueError(f"minibatches ({self.minibatches}) must divide batch_size ({self.batch_size})")
        if self.minibatch_size % self.samples_per_prompt:
            raise ValueError(
                f"samples_per_prompt ({self.samples_per_prompt}) must divide batch_size / minibatches "
                f"({self.minibatch_size})"
            )
        if self.leave_one_out and self.samples_per_prompt == 1:
            raise ValueError("leave_one_out needs samples_per_prompt above 1: an episode is set against its others")
        if self.deliver == "best" and not (self.eval_every and self.kl_coef):
            raise ValueError(
                "deliver: best needs eval_every and kl_coef above 0: the best by proxy reward alone is the most hacked"
            )
        return self

    @property
    def updates(self) -> int:
        """Updates in the run."""
        return self.episodes // self.batch_size

    @property
    def minibatch_size(self) -> int:
        """Episodes of one optimizer step, over all processes."""
        return self.batch_size // self.minibatches

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps in the run, if no update ends early."""
        return self.updates * self.ppo_epochs * self.minibatches
