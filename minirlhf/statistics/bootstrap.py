"""Means with 95% intervals, by the percentile bootstrap over posts (Efron 1979).

A post is the unit that is drawn again: what was measured on one post stays together, so a difference of two
systems on the same posts has the interval of paired data, which is far narrower than that of two separate
means.

By hand, since all statistics of a run share its draws; scipy.stats.bootstrap draws anew for each.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 95.0  # percent; every interval of the project
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Estimate:
    """A value with the two ends of its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """`{"value": ..., "low": ..., "high": ...}`, rounded: the last bits stay out of files."""
        return {"value": rounded(self.value), "low": rounded(self.low), "high": rounded(self.high)}


def rounded(number: float) -> float:
    """`number` to six significant digits.

    >>> rounded(0.123456789), rounded(-0.0)
    (0.123457, 0.0)
    """
    return float(f"{float(number):.{SIGNIFICANT_DIGITS}g}") + 0.0


@dataclass(frozen=True)
class Bootstrap:
    """Intervals from posts drawn again `resamples` times, the same posts for every statistic of one run."""

    seed: int = 0
    resamples: int = 2000

    def weights(self, count: int) -> np.ndarray:
        """How often each of `count` posts is drawn in each resample, as shares: [resamples, count]."""
        return _weights(self.seed, self.resamples, count)

    def mean(self, values: np.ndarray) -> Estimate:
        """The mean of one value a post. ValueError when there is none or one is not finite."""
        values = _finite(values)
        return interval(values.mean(), self.weights(len(values)) @ values)

    def ratio(self, numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
        """Sum of numerators by sum of denominators over posts (tokens, clauses), both drawn together."""
        numerators, denominators = _finite(numerators), _finite(denominators)
        weights = self.weights(len(numerators))
        below = weights @ denominators
        replicates = np.divide(weights @ numerators, below, out=np.zeros_like(below), where=below > 0)
        total = denominators.sum()
        return interval(numerators.sum() / total if total > 0 else 0.0, replicates)

    def crossed(self, posts: np.ndarray, voters: np.ndarray) -> np.ndarray:
        """Weights of N votes, as shares, where posts and voters are both drawn again: [resamples, N].

        Each apart, as Owen (2007, arXiv 0712.1111) draws rows and columns (the pigeonhole bootstrap): the interval is
        for other posts and other voters, and rather too wide than too narrow. Resamples without a vote are left out.

        Args:
            posts, voters: [N] the number of each vote's post and voter, from 0 on.
        """
        drawn = self.weights(int(posts.max()) + 1)[:, posts]
        if voters.max() > 0:
            drawn = drawn * Bootstrap(self.seed + 1, self.resamples).weights(int(voters.max()) + 1)[:, voters]
        total = drawn.sum(1)
        return drawn[total > 0] / total[total > 0, None]

    def crossed_mean(self, values: np.ndarray, posts: np.ndarray, voters: np.ndarray) -> Estimate:
        """The mean of one value a vote, with its interval over posts and voters. Arguments as of `crossed`."""
        values = _finite(values)
        return interval(values.mean(), self.crossed(posts, voters) @ values)


def interval(value: float, replicates: np.ndarray) -> Estimate:
    """The percentile interval of a statistic from its bootstrap replicates [resamples]."""
    low, high = np.percentile(replicates, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


@lru_cache(maxsize=8)
def _weights(seed: int, resamples: int, count: int) -> np.ndarray:
    rng = np.random.default_rng([seed, count])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    weights.setflags(write=False)
    return weights


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"one value a post is needed, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(values)))} is not finite")
    return values
