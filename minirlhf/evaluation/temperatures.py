"""Best against best: each policy at the temperature that suits it, chosen on posts that no comparison sees.

A gain at one temperature can be a gain of temperature: sampling SFT more coldly may give it for free. So each policy
is sampled at each of `evaluate.temperatures` on validation posts, keeps the one at which whoever decides likes it
best, and is compared at that one on the test posts.
"""

from collections.abc import Mapping

import numpy as np

from minirlhf.statistics.bootstrap import Bootstrap

COLUMNS = ["system", "temperature", "value", "low", "high", "count", "chosen"]


def choose(scores: Mapping[float, np.ndarray]) -> float:
    """The temperature with the highest mean score; of equals the lowest.

    >>> choose({0.0: np.array([1.0, 3.0]), 0.7: np.array([3.0, 2.0]), 1.0: np.array([2.5, 2.5])})
    0.7
    """
    return min(scores, key=lambda temperature: (-scores[temperature].mean(), temperature))


def rows(system: str, scores: Mapping[float, np.ndarray], bootstrap: Bootstrap) -> list[dict]:
    """Rows of COLUMNS: a system's mean score on the validation posts at each temperature, and which was chosen."""
    best = choose(scores)
    return [
        {"system": system, "temperature": temperature}
        | bootstrap.mean(scores[temperature]).as_json()
        | {"count": len(scores[temperature]), "chosen": int(temperature == best)}
        for temperature in sorted(scores)
    ]
