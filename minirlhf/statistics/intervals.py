"""Intervals that are no bootstrap: of a mean over a few runs, and of a share."""

import math
import statistics

from minirlhf.statistics.bootstrap import Estimate

# The 97.5% quantiles of Student's t at 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, table 1.3.6.7.2).
T975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def t975(degrees: int) -> float:
    """The 97.5% quantile of Student's t.

    Beyond the table by its expansion around the normal quantile (Abramowitz and Stegun 26.7.5), right to 3 decimals.
    """
    if degrees <= len(T975):
        return T975[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def mean_interval(values: list[float]) -> dict[str, float | None]:
    """The mean over seeds with its 95% t interval; no interval (low and high None) for a single seed.

    >>> mean_interval([1.0, 2.0, 3.0])  # s = 1: 2 -+ 4.303 / sqrt(3)
    {'value': 2.0, 'low': -0.484338, 'high': 4.48434}
    """
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        half = t975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    rounded = (None if number is None else float(f"{number:.6g}") for number in (mean, low, high))
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def wilson(successes: float, count: int) -> Estimate:
    """A share with its 95% interval by Wilson (1927), which a bootstrap would have shrink to nothing at 0 and 1.

    >>> wilson(10, 10).as_json()
    {'value': 1.0, 'low': 0.722467, 'high': 1.0}
    """
    z = 1.959964
    value, shrink = successes / count, 1 + z * z / count
    centre = (value + z * z / (2 * count)) / shrink
    half = z * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count)) / shrink
    low, high = (min(max(round(float(end), 12), 0.0), 1.0) for end in (centre - half, centre + half))
    return Estimate(float(value), low, high)
