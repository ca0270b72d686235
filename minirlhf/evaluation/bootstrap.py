"""Means with 95% intervals, by the percentile bootstrap over posts (Efron 1979).

A post is the unit that is drawn again: what was measured on one post stays together, so a difference of two systems
on the same posts has the interval of paired data, which is far narrower than that of two separate means.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 95.0  # percent; every interval of the project
RESAMPLES = 2000
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Estimate:
    """A value with the two ends of its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """`{"value": ..., "low": ..., "high": ...}`, rounded so that the file does not depend on the last bits."""
        return {"value": rounded(self.value), "low": rounded(self.low), "high": rounded(self.high)}


def rounded(number: float) -> float:
    """`number` to six significant digits.

    >>> rounded(0.123456789), rounded(-0.0)
    (0.123457, 0.0)
    """
    return float(f"{float(number):.{SIGNIFICANT_DIGITS}g}") + 0.0


@lru_cache(maxsize=8)
def resampling_weights(count: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each of `count` posts is drawn in each resample, as shares: [resamples, count], rows add up to 1."""
    rng = np.random.default_rng([seed, count])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    weights.setflags(write=False)
    return weights


def interval(value: float, replicates: np.ndarray) -> Estimate:
    """The percentile interval of a statistic from its bootstrap replicates [resamples]."""
    low, high = np.percentile(replicates, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


def mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of one value a post, with its interval. ValueError when there is none or one is not finite."""
    values = _finite(values)
    return interval(values.mean(), resampling_weights(len(values), seed) @ values)


def ratio(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> Estimate:
    """Sum of numerators by sum of denominators over posts (tokens, clauses), both drawn together."""
    numerators, denominators = _finite(numerators), _finite(denominators)
    weights = resampling_weights(len(numerators), seed)
    below = weights @ denominators
    replicates = np.divide(weights @ numerators, below, out=np.zeros_like(below), where=below > 0)
    total = denominators.sum()
    return interval(numerators.sum() / total if total > 0 else 0.0, replicates)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"one value a post is needed, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(values)))} is not finite")
    return values
