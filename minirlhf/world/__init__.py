"""The embedded miniature TL;DR world: posts with a known truth, authors with habits, noisy annotators, a gold judge.

See `grammar.py` for what can be said, `authors.py` for how it is said, `judge.py` for what it is worth, and
docs/world.md for why.
"""

from collections.abc import Iterator

from minirlhf.world.annotators import prefers_first
from minirlhf.world.authors import write_summary
from minirlhf.world.judge import BEST_SCORE, Judgement, judge
from minirlhf.world.posts import stories

__all__ = ["BEST_SCORE", "Judgement", "comparisons", "judge", "posts"]


def posts(seed: int, split: str, count: int, habits: float = 1.0) -> Iterator[dict]:
    """`count` posts of a split ("train", "validation", "test"): prompt, completion, subreddit, record.

    `habits`: how much of their rates the authors' habits have, from 0 to 1 (`authors.py`).
    """
    for rng, record, prompt, subreddit, distractions in stories(seed, split, count):
        completion = " " + write_summary(rng, record, distractions, habits)
        yield {"prompt": prompt, "completion": completion, "subreddit": subreddit, "record": record}


def comparisons(seed: int, split: str, count: int, habits: float = 1.0) -> Iterator[dict]:
    """`count` posts of a split, each with two author summaries in the order an annotator preferred them."""
    use = "comparisons" if split == "train" else split
    for rng, record, prompt, subreddit, distractions in stories(seed + 1_000_003, use, count):
        first = write_summary(rng, record, distractions, habits)
        while (second := write_summary(rng, record, distractions, habits)) == first:
            pass
        if not prefers_first(rng, judge(first, record).score, judge(second, record).score):
            first, second = second, first
        yield {
            "prompt": prompt,
            "chosen": " " + first,
            "rejected": " " + second,
            "subreddit": subreddit,
            "record": record,
        }
