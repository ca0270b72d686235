"""Rewards made of rewards: a weighted sum, and ensembles against over-optimization."""

import statistics
from collections.abc import Sequence
from typing import Literal

from minirlhf.rewards.text import RewardFunction, call_reward
from minirlhf.runtime.errors import UserError


class _Combination:
    """Calls each member with what its own signature asks for, and combines their scores a response."""

    def __init__(self, rewards: Sequence[RewardFunction]):
        if not rewards:
            raise UserError(f"{type(self).__name__}: it needs at least one reward function")
        self.rewards = list(rewards)

    def __call__(
        self, prompts: list[str], responses: list[str], ended: list[bool], response_ids: list[list[int]]
    ) -> list[float]:
        members = [call_reward(reward, prompts, responses, ended, response_ids) for reward in self.rewards]
        # A score a token counts by its sum.
        totals = [[sum(score) if isinstance(score, list) else score for score in scores] for scores in members]
        return [self.combine(scores) for scores in zip(*totals, strict=True)]

    def combine(self, scores: Sequence[float]) -> float:
        """One score from the members' scores of one response."""
        raise NotImplementedError


class WeightedSum(_Combination):
    """sum_i weight_i x reward_i; (reward, weight) pairs."""

    def __init__(self, *weighted: tuple[RewardFunction, float]):
        super().__init__([reward for reward, _ in weighted])
        self.weights = [weight for _, weight in weighted]

    def combine(self, scores: Sequence[float]) -> float:
        return sum(weight * score for weight, score in zip(self.weights, scores, strict=True))


class Ensemble(_Combination):
    """Several reward models as one (Coste et al. 2023, arXiv 2310.02743).

    Args:
        rewards: the members, on one scale.
        how: "mean"; "min", the worst case; "mean_minus_std", mean - k x (population) standard deviation.
        k: of "mean_minus_std".
    """

    def __init__(
        self,
        rewards: Sequence[RewardFunction],
        how: Literal["mean", "min", "mean_minus_std"] = "mean",
        k: float = 1.0,
    ):
        super().__init__(rewards)
        if how not in ("mean", "min", "mean_minus_std"):
            raise UserError(f"Ensemble: how is {how!r}; it must be 'mean', 'min' or 'mean_minus_std'")
        self.how, self.k = how, k

    def combine(self, scores: Sequence[float]) -> float:
        if self.how == "min":
            return min(scores)
        mean = statistics.fmean(scores)
        return mean if self.how == "mean" else mean - self.k * statistics.pstdev(scores)
