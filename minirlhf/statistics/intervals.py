"""Intervals that are no bootstrap: of a mean over a few runs, and of a share."""

import math
import statistics

from minirlhf.statistics.bootstrap import Estimate

SHARE = 0.95  # of every interval of the project


def t975(degrees: int) -> float:
    """The 97.5% quantile of Student's t."""
    from scipy.special import stdtrit  # what scipy.stats.t stands on, without its half second of import

    return float(stdtrit(degrees, (1 + SHARE) / 2))


def mean_interval(values: list[float]) -> dict[str, float | None]:
    """The mean over seeds with its 95% t interval; no interval (low and high None) for a single seed.

    >>> mean_interval([1.0, 2.0, 3.0])  # s = 1: 2 -+ 4.303 / sqrt(3)
    {'value': 2.0, 'low': -0.484138, 'high': 4.48414}
    """
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        half = t975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    rounded = (None if number is None else float(f"{number:.6g}") for number in (mean, low, high))
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def wilson(successes: float, count: int) -> Estimate:
    """A share with its 95% interval by Wilson (1927), which a bootstrap would have shrink to nothing at 0 and 1.

    By hand, since a tie counts as half a success and SciPy takes whole ones only.

    >>> wilson(10, 10).as_json()
    {'value': 1.0, 'low': 0.722467, 'high': 1.0}
    """
    z = statistics.NormalDist().inv_cdf((1 + SHARE) / 2)
    value, shrink = successes / count, 1 + z * z / count
    centre = (value + z * z / (2 * count)) / shrink
    half = z * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count)) / shrink
    low, high = (min(max(round(float(end), 12), 0.0), 1.0) for end in (centre - half, centre + half))
    return Estimate(float(value), low, high)
