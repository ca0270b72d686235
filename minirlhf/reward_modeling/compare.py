"""Reward models side by side on the same comparisons, from nothing but their scores."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.special import expit

from minirlhf.reward_modeling import labels, quality
from minirlhf.reward_modeling.examine import worth
from minirlhf.reward_modeling.weights import FOLDS, fit, held_out_losses
from minirlhf.statistics.bootstrap import Bootstrap, rounded


def compare(
    rows: Sequence[dict], scores: Mapping[str, quality.Scores], bootstrap: Bootstrap, columns: Sequence[str] = ()
) -> dict:
    """All that can be said of comparisons and of models by their scores.

    Args:
        rows: comparisons, as minirlhf/data/held_out.py reads them.
        scores: model -> score of every summary in `rows`.
        columns: of the rows, by whose values accuracy is told apart.

    Returns:
        comparisons, posts: how many; labels: `labels.agreement` and `labels.position`, and how often the longer was
        chosen; rules: accuracy of "the longer wins" and of a coin; models: for each what `examine.worth` finds,
        with the intervals of log loss and Brier score, minus_longer (its accuracy minus that rule's, paired),
        `rescaled`, position, slices and tables; differences: of the accuracies of two models, paired, and how often
        they order a comparison alike.
    """
    lengths = {summary: float(len(summary[1].strip())) for summary in quality.summaries_of(rows)}
    longer = quality.hits(quality.margins(rows, lengths))
    parts = labels.slices(rows, lengths, columns)
    told, place = labels.agreement(rows, bootstrap), labels.position(rows, None, bootstrap)
    models, hits = {}, {}
    for name, of in scores.items():
        margins = quality.margins(rows, of)
        hits[name] = quality.hits(margins)
        found, tables = worth(rows, of, lengths, bootstrap)
        found["intervals"] |= {
            "test_loss": quality.share(np.logaddexp(0, -margins), rows, bootstrap).as_json(),
            "brier": quality.share((1 - expit(margins)) ** 2, rows, bootstrap).as_json(),
        }
        found["minus_longer"] = quality.share(hits[name] - longer, rows, bootstrap).as_json()
        found["rescaled"] = rescaled(margins, rows, bootstrap)
        found["share_of_the_way"] = _share_of_the_way(found["accuracy"], told)
        found["position"] = labels.position(rows, hits[name], bootstrap)
        found["slices"] = [
            {"slice": kind, "group": group, "count": len(inside)}
            | quality.share(hits[name][inside], [rows[index] for index in inside], bootstrap).as_json()
            for kind, group, inside in parts
        ]
        models[name] = found | {"tables": {table: content for table, (content, _) in tables.items()}}
    return {
        "comparisons": len(rows),
        "posts": len({row["prompt"] for row in rows}),
        "labels": {"agreement": told, "position": place},
        "rules": next(iter(models.values()))["rules"],
        "models": models,
        "differences": [
            {"one": one, "other": other}
            | quality.share(hits[one] - hits[other], rows, bootstrap).as_json()
            | {"alike": rounded(np.mean(hits[one] == hits[other]))}
            for one, other in combinations(scores, 2)
        ],
    }


def rescaled(margins: np.ndarray, rows: Sequence[dict], bootstrap: Bootstrap) -> dict | None:
    """What is lost by a wrong scale alone: the log loss under the best one, learnt on other posts.

    Returns:
        scale: what margins are multiplied by (1: the model is as sure as it should be on the whole; below: too sure),
        learnt on all; loss: nats a comparison, with its interval; None for fewer posts than folds.
    """
    posts = [row["prompt"] for row in rows]
    if len(set(posts)) < FOLDS:
        return None
    losses = held_out_losses(margins[:, None], posts)
    return {"scale": rounded(fit(margins[:, None])[0]), "loss": quality.share(losses, rows, bootstrap).as_json()}


def _share_of_the_way(accuracy: float, told: dict | None) -> dict[str, float] | None:
    """How much of the way from a coin to the ceiling: to its higher bound, and to its lower one."""
    if told is None or told["ceiling"] is None or told["ceiling"]["low"] <= 0.5:
        return None
    low, high = (rounded((accuracy - 0.5) / (told["ceiling"][end] - 0.5)) for end in ("high", "low"))
    return {"low": low, "high": high}
