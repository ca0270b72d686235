"""Which summaries a reader is shown: a seeded sample, then the largest gains and the largest losses by the
judge."""

import random
from difflib import SequenceMatcher

KINDS = ("sample", "gain", "loss")


def choose(
    gains: list[float], seed: int, sample: int, extremes: int, between_equals: list[float] | None = None
) -> list[tuple[int, str]]:
    """Choose posts to show, as (index, kind); a post is shown once, a sampled one is never also an extreme.

    Args:
        gains: PPO's score minus SFT's for each post; NaN is neither a gain nor a loss.
        seed: of the sample.
        sample: how many to draw at random.
        extremes: how many of the largest gains and, again, of the largest losses; only true gains and true
        losses.
        between_equals: which of two equal gains, or losses, is the larger.
    """
    order = list(range(len(gains)))
    drawn = sorted(random.Random(f"examples/{seed}").sample(order, min(sample, len(order))))
    rest = [index for index in order if index not in set(drawn)]
    then = between_equals or [0.0] * len(gains)
    up = sorted((i for i in rest if gains[i] > 0), key=lambda i: (-gains[i], -then[i], i))[:extremes]
    down = sorted((i for i in rest if gains[i] < 0), key=lambda i: (gains[i], then[i], i))[:extremes]
    kinds = zip(KINDS, (drawn, up, down), strict=True)
    return [(index, kind) for kind, chosen in kinds for index in chosen]


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """`after` against `before`, word by word: runs of words that are "same", "removed" or "added".

    >>> differences("my dog ran off", "my cat ran")
    [('same', 'my'), ('removed', 'dog'), ('added', 'cat'), ('same', 'ran'), ('removed', 'off')]
    """
    old, new = before.split(), after.split()
    runs = []
    for operation, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            runs.append(("same", " ".join(old[i:j])))
        else:
            runs += [("removed", " ".join(old[i:j]))] * (j > i) + [("added", " ".join(new[k:m]))] * (m > k)
    return runs
