"""Choosing temperatures: each policy, and best-of-n of SFT, is sampled at each of them, and scored."""

from collections.abc import Mapping

import numpy as np

from minirlhf.evaluation import frontier
from minirlhf.evaluation.evaluator import Evaluator
from minirlhf.evaluation.temperatures import BEST_OF_N, BestOfN, Choice, choose
from minirlhf.models.trunk import TrunkAndHead

BEST_OF_N_POSTS = 40  # validation posts on which its temperature is chosen: each costs n samples a temperature


def choose_all(evaluator: Evaluator, policies: Mapping[str, TrunkAndHead]) -> Choice:
    """Scores of each policy, and of best-of-n of SFT, at each temperature, on the evaluator's posts."""
    asked = sorted(evaluator.params.evaluate.temperatures)
    scores = {
        name: {temperature: evaluator.chooser(evaluator.sample(policy, temperature)) for temperature in asked}
        for name, policy in policies.items()
    }
    warm = [temperature for temperature in asked if temperature > 0]
    if evaluator.params.evaluate.best_of_n > 1 and warm:
        scores[BEST_OF_N] = {temperature: _best_of_n(evaluator, policies["sft"], temperature) for temperature in warm}
    return Choice(scores)


def best_of_n(evaluator: Evaluator, sft: TrunkAndHead, choice: Choice) -> BestOfN | None:
    """What best-of-n reaches on the evaluator's posts; None where it is not asked for."""
    if BEST_OF_N not in choice.scores:
        return None
    temperature, count = choose(choice.scores[BEST_OF_N]), evaluator.frontier_count
    proxy, judged = evaluator.best_of_n_scores(sft, temperature, count)
    n = proxy.shape[1]
    values = frontier.best_of_n(proxy, proxy if judged is None else judged, n)
    return BestOfN(n, temperature, count, evaluator.bootstrap.mean(values))


def _best_of_n(evaluator: Evaluator, sft: TrunkAndHead, temperature: float) -> np.ndarray:
    count = min(BEST_OF_N_POSTS, len(evaluator.posts))
    proxy, judged = evaluator.best_of_n_scores(sft, temperature, count)
    return frontier.best_of_n(proxy, proxy if judged is None else judged, proxy.shape[1])
