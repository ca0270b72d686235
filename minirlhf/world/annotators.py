"""Simulated annotators: they compare two summaries of a post, and err as people do.

The chance that summary a is preferred to b follows Bradley and Terry (1952) on the gold score: sigmoid((gold_a -
gold_b) / TEMPERATURE).
"""

import itertools
import math
import random

from minirlhf.world.judge import judge

# Gives an agreement with the gold order of about 70% on pairs of authors' summaries (tests/world/test_posts.py), near
# the 73% to 77% that labellers and researchers of Stiennon et al. 2020 reached.
TEMPERATURE = 1.6


def prefers_first(rng: random.Random, gold_first: float, gold_second: float) -> bool:
    """Whether an annotator prefers the first of two summaries with these gold scores."""
    return rng.random() < 1 / (1 + math.exp((gold_second - gold_first) / TEMPERATURE))


def compare_all(rng: random.Random, row: dict, summaries: list[tuple[str, bool]]) -> list[dict]:
    """An annotator's comparison of every two different summaries of one post.

    Args:
        row: a post with its `prompt` and `record`.
        summaries: (text, whether it ended by itself).

    Returns:
        rows of prompt, chosen, rejected, chosen_ended, rejected_ended, record.
    """
    golds = [judge(text, row["record"], ended).score for text, ended in summaries]
    comparisons = []
    for first, second in itertools.combinations(range(len(summaries)), 2):
        if summaries[first] == summaries[second]:
            continue
        if not prefers_first(rng, golds[first], golds[second]):
            first, second = second, first
        (chosen, chosen_ended), (rejected, rejected_ended) = summaries[first], summaries[second]
        comparisons.append({
            "prompt": row["prompt"],
            "chosen": chosen,
            "rejected": rejected,
            "chosen_ended": chosen_ended,
            "rejected_ended": rejected_ended,
            "record": row["record"],
        })  # fmt: skip
    return comparisons
