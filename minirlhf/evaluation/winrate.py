"""Win rates: the share of posts on which one system's summary beats another's, a tie counting one half.

Posts without a verdict (NaN, from judges that may give none) are left out. Of several voters each vote counts
alike, and intervals are for other posts and other voters.
"""

import numpy as np

from minirlhf.statistics.bootstrap import Bootstrap, Estimate, interval

# The logistic regression of the length-controlled win rate has a normal prior with this precision on both
# coefficients: nothing next to hundreds of posts, and a finite answer where one system wins them all.
PRIOR_PRECISION = 0.01
NEWTON_STEPS = 30


def wins_by_score(scores: np.ndarray, other_scores: np.ndarray) -> np.ndarray:
    """For each post 1 where the score is higher than the other's, 0 where it is lower, 0.5 for a tie.

    >>> wins_by_score(np.array([3, 1, 2]), np.array([1, 3, 2])).tolist()
    [1.0, 0.0, 0.5]
    """
    return (np.sign(np.asarray(scores, float) - np.asarray(other_scores, float)) + 1) / 2


def win_rates(wins: np.ndarray, length_difference: np.ndarray, bootstrap: Bootstrap) -> tuple[Estimate, Estimate]:
    """The plain win rate, and the length-controlled one, of wins [B] or [voters, B] that may hold NaN."""
    if wins.ndim == 2:
        return _win_rates_by_voters(wins, length_difference, bootstrap)
    judged = ~np.isnan(wins)
    matched = length_controlled_win_rate(wins[judged], length_difference[judged], bootstrap)
    return bootstrap.mean(wins[judged]), matched


def by_post(wins: np.ndarray) -> np.ndarray:
    """[B] the mean verdict on each post, of wins [B] or [voters, B]; NaN where there is none.

    >>> by_post(np.array([[1.0, np.nan, 0.5], [0.0, np.nan, np.nan]])).tolist()
    [0.5, nan, 0.5]
    """
    if wins.ndim == 1:
        return wins
    told = ~np.isnan(wins)
    count = told.sum(0)
    return np.where(count > 0, np.where(told, wins, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _win_rates_by_voters(
    wins: np.ndarray, length_difference: np.ndarray, bootstrap: Bootstrap
) -> tuple[Estimate, Estimate]:
    voters, posts = np.nonzero(~np.isnan(wins))
    (voter_numbers, post_numbers) = (np.unique(of, return_inverse=True)[1] for of in (voters, posts))
    weights = bootstrap.crossed(post_numbers, voter_numbers)
    won = wins[voters, posts]
    matched = _controlled(won, length_difference[posts], weights)
    return interval(won.mean(), weights @ won), matched


def length_controlled_win_rate(wins: np.ndarray, length_difference: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """The win rate that is left when both summaries of a post are equally long.

    As in length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression

        P(win) = sigmoid(theta + phi * tanh(length_difference / standard deviation of it))

    is fitted to the wins, and theta alone gives the answer, sigmoid(theta). Their term for the difficulty of
    an instruction needs many systems on the same posts and is left out. Where one system is longer on every
    post the answer is an extrapolation, and its interval says so by being wide.

    Args:
        wins: from 1 to 0 for each post, a tie 0.5.
        length_difference: own length minus the other's, same posts, any unit.
    """
    return _controlled(wins, length_difference, bootstrap.weights(len(wins)))


def _controlled(wins: np.ndarray, length_difference: np.ndarray, weights: np.ndarray) -> Estimate:
    wins, difference = np.asarray(wins, float), np.asarray(length_difference, float)
    spread = difference.std() or np.abs(difference).max() or 1.0
    control = np.tanh(difference / spread)
    everything = np.full((1, len(wins)), 1 / len(wins))
    fitted = _fit(everything, wins, control)[0]
    replicates = _fit(weights, wins, control)
    return interval(fitted, replicates)


def _fit(weights: np.ndarray, wins: np.ndarray, control: np.ndarray) -> np.ndarray:
    """sigmoid(theta) of a logistic regression for each row of weights [S, B], by Newton's method: [S].

    By hand, since all rows are fitted at once: 2,000 of 398 posts take 0.21 s, and 2.7 s by scipy.optimize, row by row.
    """
    prior = PRIOR_PRECISION / len(wins)
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(theta[:, None] + phi[:, None] * control)  # [S, B]
        error = weights * (wins - chance)
        curvature = weights * chance * (1 - chance)
        slope_theta, slope_phi = error.sum(1) - prior * theta, error @ control - prior * phi
        h_tt, h_tp = curvature.sum(1) + prior, curvature @ control
        h_pp = curvature @ control**2 + prior
        determinant = h_tt * h_pp - h_tp**2
        step_theta = (h_pp * slope_theta - h_tp * slope_phi) / determinant
        step_phi = (h_tt * slope_phi - h_tp * slope_theta) / determinant
        # Far from the solution a full Newton step of a logistic regression can overshoot: keep it short.
        longest = np.maximum(1.0, np.maximum(np.abs(step_theta), np.abs(step_phi)) / 2.0)
        theta, phi = theta + step_theta / longest, phi + step_phi / longest
        if max(np.abs(step_theta).max(), np.abs(step_phi).max()) < 1e-9:
            break
    return _sigmoid(theta)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
