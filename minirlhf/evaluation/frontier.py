"""Reward bought with KL: best-of-n sampling and the curves of Gao et al. 2022 (arXiv 2210.10760)."""

import math
from dataclasses import dataclass

import numpy as np

from minirlhf.statistics.bootstrap import Estimate


def best_of_n_kl(n: int) -> float:
    """KL in nats of best-of-n sampling from the policy it samples: ln n - (n - 1) / n (Stiennon et al. 2020).

    Exact where no two samples tie, an upper bound where some do (a policy that gives the same summary twice).
    """
    return math.log(n) - (n - 1) / n


def best_of_n(proxy: np.ndarray, target: np.ndarray, n: int) -> np.ndarray:
    """What best-of-n by `proxy` is worth by `target`, estimated without bias from N >= n samples a post.

    The mean over all ways to pick n of the N samples of the target of the one with the highest proxy (Nakano
    et al. 2021, appendix I): with the samples in rising order of proxy, sample i = 1..N is the best of C(i-1,
    n-1) of the C(N, n) sets. Samples with the same proxy share their weight.

    Args:
        proxy: [B, N] score that chooses.
        target: [B, N] score that is reported; `proxy` itself gives the proxy of best-of-n.
        n: how many to choose from.

    Returns:
        [B], one estimate a post.
    """
    proxy, target = np.asarray(proxy, float), np.asarray(target, float)
    samples = proxy.shape[1]
    if not 1 <= n <= samples:
        raise ValueError(f"best of {n} needs 1 to {samples} samples")
    sets = np.cumsum([0] + [math.comb(i, n - 1) for i in range(samples)]) / math.comb(samples, n)
    ordered = np.sort(proxy, axis=1)
    rows = list(zip(ordered, proxy, strict=True))
    below = np.stack([np.searchsorted(row, own, side="left") for row, own in rows])
    up_to = np.stack([np.searchsorted(row, own, side="right") for row, own in rows])
    weight = (sets[up_to] - sets[below]) / (up_to - below)
    return (weight * target).sum(axis=1)


@dataclass(frozen=True)
class Curve:
    """Gold gained over the SFT policy as a function of d = sqrt(KL): d (a - b d), or d (a - b ln d) for
    RL."""

    kind: str  # "best-of-n" or "ppo"
    a: float
    b: float

    def gain(self, kl: float) -> float:
        """Gold gained at a KL in nats."""
        d = math.sqrt(kl)
        if d == 0:
            return 0.0
        return d * (self.a - self.b * (d if self.kind == "best-of-n" else math.log(d)))

    @property
    def peak_kl(self) -> float | None:
        """The KL of the highest gain, None where the curve has no peak (b <= 0)."""
        if self.b <= 0 or (self.kind == "best-of-n" and self.a <= 0):
            return None
        d = self.a / (2 * self.b) if self.kind == "best-of-n" else math.exp(min(self.a / self.b - 1, 300.0))
        return d * d


def fit_curve(kind: str, kl: np.ndarray, gain: np.ndarray) -> Curve | None:
    """Fit a `Curve` by least squares, which is linear in a and b; None from fewer than four points with KL >
    0."""
    kl, gain = np.asarray(kl, float), np.asarray(gain, float)
    kept = kl > 0
    if kept.sum() < 4:
        return None
    d = np.sqrt(kl[kept])
    columns = np.stack([d, -d * (d if kind == "best-of-n" else np.log(d))], axis=1)
    a, b = np.linalg.lstsq(columns, gain[kept], rcond=None)[0]
    return Curve(kind, float(a), float(b))


def overoptimized_from(proxy: list[float], gold: list[Estimate]) -> int | None:
    """The point of a path (in order of KL) after which the proxy still rises while gold is lost, or None.

    That is the point with the highest gold, if the path's last point has a higher proxy and a gold whose
    interval lies wholly below the peak's.
    """
    peak = max(range(len(gold)), key=lambda index: gold[index].value)
    lost = gold[-1].high < gold[peak].low and proxy[-1] > proxy[peak]
    return peak if lost else None
