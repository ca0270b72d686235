"""What is logged of an update, and the signs that a run has gone wrong."""

from typing import Any

from torch import Tensor

from minirlhf.ppo.advantages import explained_variance, kl_per_token
from minirlhf.ppo.trajectory import Targets, Trajectory
from minirlhf.settings.ppo import PPOConfig

Row = dict[str, Any]


def batch_statistics(trajectory: Trajectory, targets: Targets) -> dict[str, float]:
    """Of the episodes of an update, over real tokens only. Means over responses, if not said otherwise.

    reward                what the reward function gave (summed over the tokens where it gives one a token)
    objective             reward - missing-EOS penalty - kl_coef x KL: what PPO maximises
    kl                    the KL that is penalised, in nats a response
    length, ended         tokens; share that ended by themselves
    entropy               nats a token: the mean of -log p(token), which has the entropy as its mean
    explained_variance    1 - Var(G - value) / Var(G), of the values in the rollout and what their states came to, the
                          Monte-Carlo returns G; of A + V a lower gae_lambda would inflate it
    """
    mask = trajectory.response_mask
    return {
        "reward": float(trajectory.scores.sum(1).mean()),
        "objective": float(targets.rewards.sum(1).mean()),
        "kl": float(targets.kl.sum(1).mean()),
        "length": float(trajectory.response_length.float().mean()),
        "ended": float(trajectory.ended.float().mean()),
        "entropy": float(-trajectory.logprobs[mask].mean()),
        "explained_variance": explained_variance(trajectory.values[mask], targets.monte_carlo[mask]),
    }


def evaluation_statistics(trajectory: Trajectory, config: PPOConfig) -> dict[str, float]:
    """Of responses to held-out prompts: reward, KL in nats a response, length, share that ended."""
    kl = _kl(trajectory, config)
    return {
        "eval_reward": float(trajectory.scores.sum(1).mean()),
        "eval_kl": float(kl.sum(1).mean()),
        "eval_length": float(trajectory.response_length.float().mean()),
        "eval_ended": float(trajectory.ended.float().mean()),
    }


def _kl(trajectory: Trajectory, config: PPOConfig) -> Tensor:
    kl = kl_per_token(trajectory.logprobs, trajectory.reference_logprobs, config.kl_estimator)
    return kl.masked_fill(~trajectory.response_mask, 0)


def rounded(row: Row) -> Row:
    """Floats to six significant digits, as they are written."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}


class Alarms:
    """Stops a run that has collapsed. `identical` counts updates in a row whose responses were all equal."""

    def __init__(self, config: PPOConfig):
        self.config = config
        self.identical = 0

    def check(self, row: Row, trajectory: Trajectory) -> str | None:
        """The reason to stop after this update, or None."""
        config = self.config
        if config.kl_ceiling is not None and row["kl"] > config.kl_ceiling:
            return (
                f"update {row['update']}: collapse: KL {row['kl']:.4g} nats a response is above kl_ceiling "
                f"{config.kl_ceiling:g}; try a larger kl_coef or a lower learning_rate"
            )
        if config.entropy_floor is not None and row["entropy"] < config.entropy_floor:
            return (
                f"update {row['update']}: collapse: entropy {row['entropy']:.4g} nats a token is below entropy_floor "
                f"{config.entropy_floor:g}; try a larger kl_coef or a lower learning_rate"
            )
        same = len({tuple(ids) for ids in trajectory.response_ids}) == 1
        self.identical = self.identical + 1 if same else 0
        if config.identical_patience and self.identical >= config.identical_patience:
            return (
                f"update {row['update']}: collapse: all responses have been {trajectory.responses[0][:80]!r} for "
                f"{self.identical} updates; try a larger kl_coef or a lower learning_rate"
            )
        return None
