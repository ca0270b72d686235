"""What a reward function is worth on held-out comparisons: accuracy, calibration, agreement with the gold judge."""

import math
from collections.abc import Sequence

from minirlhf.comparisons import group_comparisons
from minirlhf.rewards.text import RewardFunction, call_reward


def mean_score(reward: RewardFunction, posts: Sequence[dict]) -> float:
    """Mean score of the authors' summaries of posts (rows of `prompt` and `completion`)."""
    prompts, summaries = ([row[name] for row in posts] for name in ("prompt", "completion"))
    scores = call_reward(reward, prompts, summaries, [True] * len(posts), [[] for _ in posts])
    return sum(scores) / len(scores)


def comparison_margins(reward: RewardFunction, rows: Sequence[dict]) -> list[float]:
    """Score of the chosen minus score of the rejected summary, for every comparison, grouped by post.

    The order is that of `group_comparisons`; each summary is scored once.
    """
    groups = group_comparisons(rows)
    flat = [(group["prompt"], text, ended) for group in groups for text, ended in group["summaries"]]
    prompts, texts, ended = map(list, zip(*flat, strict=True))
    scores = call_reward(reward, prompts, texts, ended, [[] for _ in texts])
    margins, offset = [], 0
    for group in groups:
        margins += [scores[offset + chosen] - scores[offset + rejected] for chosen, rejected in group["pairs"]]
        offset += len(group["summaries"])
    return margins


def accuracy(margins: Sequence[float]) -> float:
    """Share of the comparisons ordered as the annotator did; a tie counts one half."""
    return sum((margin > 0) + 0.5 * (margin == 0) for margin in margins) / len(margins)


def preference_loss(margins: Sequence[float]) -> float:
    """Mean of -log sigmoid(margin), nats a comparison (Bradley and Terry 1952)."""
    return sum(math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0) for margin in margins) / len(margins)


def calibration(margins: Sequence[float], bins: int = 10) -> list[dict]:
    """How often the annotator agreed where the model was so sure.

    Every comparison counts once from either side's view, so that the curve is symmetric about (0.5, 0.5): a model
    that gives the chosen summary 0.7 gave the rejected one 0.3.

    Returns:
        a row a bin that is not empty: predicted (mean probability), observed (share chosen), count.
    """
    views = [(1 / (1 + math.exp(-max(min(margin, 700.0), -700.0))), 1) for margin in margins]
    views += [(1 - probability, 0) for probability, _ in views]
    rows = []
    for index in range(bins):
        inside = [(p, chosen) for p, chosen in views if min(int(p * bins), bins - 1) == index]
        if inside:
            count = len(inside)
            predicted, observed = (sum(column) / count for column in zip(*inside, strict=True))
            rows.append({"predicted": round(predicted, 4), "observed": round(observed, 4), "count": count})
    return rows
