"""Best against best: each policy at the temperature that suits it, chosen on posts that no comparison sees.

A gain at one temperature can be a gain of temperature: sampling SFT more coldly may give it for free. So each policy
is sampled at each of `evaluate.temperatures` on validation posts, keeps the one at which whoever decides likes it
best, and is compared at that one on the test posts. Where that judge costs money or is people, the training reward
chooses. Best of n samples of SFT by the training reward, which is alignment without training, gets the same care.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minirlhf.statistics.bootstrap import Estimate

BEST_OF_N = "best-of-n"


@dataclass(frozen=True)
class Choice:
    """The temperature of each system, and the scores behind it."""

    scores: dict[str, dict[float, np.ndarray]]  # system -> temperature -> [B] on the validation posts

    @property
    def best(self) -> dict[str, float]:
        """The temperature of each policy."""
        return {system: choose(scores) for system, scores in self.scores.items() if system != BEST_OF_N}


@dataclass(frozen=True)
class BestOfN:
    """Best of n samples of the SFT policy at its best temperature, on the first test posts."""

    n: int
    temperature: float
    posts: int
    score: Estimate


def choose(scores: Mapping[float, np.ndarray]) -> float:
    """The temperature with the highest mean score; of equals the lowest.

    >>> choose({0.0: np.array([1.0, 3.0]), 0.7: np.array([3.0, 2.0]), 1.0: np.array([2.5, 2.5])})
    0.7
    """
    return min(scores, key=lambda temperature: (-scores[temperature].mean(), temperature))
