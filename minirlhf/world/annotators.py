"""Simulated annotators: they compare two summaries of a post, and err as people do.

The chance that summary a is preferred to b follows Bradley and Terry (1952) on the gold score: sigmoid((gold_a -
gold_b) / TEMPERATURE).
"""

import math
import random

# Gives an agreement with the gold order of about 75% on pairs of author summaries (measured in
# tests/world/test_posts.py), between the 73% and 77% that labellers and researchers of Stiennon et al. 2020 reached.
TEMPERATURE = 1.6


def prefers_first(rng: random.Random, gold_first: float, gold_second: float) -> bool:
    """Whether an annotator prefers the first of two summaries with these gold scores."""
    return rng.random() < 1 / (1 + math.exp((gold_second - gold_first) / TEMPERATURE))
