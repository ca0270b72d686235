"""What a reward model's score and a likelihood's numbers weigh in a reward, learnt from comparisons.

Of Bradley and Terry's model (1952) the log-odds that one summary is preferred to another are here a weighted sum of the
differences between them: a logistic regression without an intercept, on comparisons that the reward model did not
train on, since it is too sure of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from minirlhf.reward_modeling.quality import score_once, share, sides, summaries_of
from minirlhf.rewards.likelihood import FEATURES, Likelihood, describe
from minirlhf.rewards.text import RewardFunction
from minirlhf.statistics.bootstrap import Bootstrap, Estimate

FOLDS = 5
PRIOR = 1.0  # precision of the normal prior on weights of standardized differences: nothing beside hundreds of pairs


@dataclass(frozen=True)
class Learnt:
    """The weights, and whether they are worth having."""

    weights: dict[str, float]  # of a likelihood's features, where the reward model's own score weighs 1
    scale: float  # the sum divided by this is log-odds
    gain: Estimate  # nats by which the loss of a comparison falls that had no part in them: with and without likelihood

    @property
    def helps(self) -> bool:
        """Whether held-out comparisons say so, and the reward model still counts for something."""
        return self.gain.low > 0 and self.scale > 0


def learn(reward: RewardFunction, likelihood: Likelihood, rows: Sequence[dict], bootstrap: Bootstrap) -> Learnt:
    """Weights from comparisons (rows of `prompt`, `chosen`, `rejected`) that the reward model did not train on."""
    summaries = summaries_of(rows)
    scores = score_once(reward, summaries)
    prompts, texts, ended = map(list, zip(*summaries, strict=True))
    features = map(describe, likelihood.logprobs(prompts, texts, ended))
    known = {summary: (scores[summary], *row) for summary, row in zip(summaries, features, strict=True)}
    differences = np.array([np.subtract(known[chosen], known[rejected]) for chosen, rejected in map(sides, rows)])
    posts = [row["prompt"] for row in rows]
    gains = held_out_losses(differences[:, :1], posts) - held_out_losses(differences, posts)
    of_reward, *others = fit(differences)
    scale = float(1 / of_reward) if of_reward else 0.0
    weights = {name: float(weight * scale) for name, weight in zip(FEATURES, others, strict=True)}
    return Learnt(weights, scale, share(gains, rows, bootstrap))


def fit(differences: np.ndarray) -> np.ndarray:
    """[K] weights from [N, K] differences, chosen minus rejected.

    A difference that is the same in all comparisons says nothing, and weighs 0.
    """
    spread = differences.std(0)
    scaled = differences / np.where(spread > 0, spread, 1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = scaled @ weights
        slope = -0.5 * (1 - np.tanh(margins / 2))  # of log(1 + exp(-margin))
        return np.logaddexp(0, -margins).sum() + PRIOR / 2 * weights @ weights, slope @ scaled + PRIOR * weights

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    return np.where(spread > 0, found / np.where(spread > 0, spread, 1.0), 0.0)


def held_out_losses(differences: np.ndarray, posts: Sequence[str]) -> np.ndarray:
    """[N] nats of each comparison under weights that were fitted without the comparisons of its post, in FOLDS parts.

    Args:
        posts: the post of each comparison.
    """
    _, numbers = np.unique(posts, return_inverse=True)
    folds = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    losses = np.empty(len(differences))
    for fold in range(FOLDS):
        inside = folds == fold
        losses[inside] = np.logaddexp(0, -(differences[inside] @ fit(differences[~inside])))
    return losses
