"""The embedded miniature TL;DR world: posts with a known truth, mediocre authors, noisy annotators, a gold judge.

See `grammar.py` for what can be said, `posts.py` for who says it, `judge.py` for what it is worth.
"""

from collections.abc import Iterator

from minirlhf.world.annotators import prefers_first
from minirlhf.world.judge import BEST_SCORE, Judgement, judge
from minirlhf.world.posts import stories, write_summary

__all__ = ["BEST_SCORE", "Judgement", "comparisons", "judge", "posts"]


def posts(seed: int, split: str, count: int) -> Iterator[dict]:
    """`count` posts of a split ("train", "validation", "test"): prompt, completion, subreddit, record."""
    for rng, record, prompt, subreddit, distractions in stories(seed, split, count):
        completion = " " + write_summary(rng, record, distractions)
        yield {"prompt": prompt, "completion": completion, "subreddit": subreddit, "record": record}


def comparisons(seed: int, split: str, count: int) -> Iterator[dict]:
    """`count` posts of a split, each with two author summaries in the order an annotator preferred them."""
    use = "comparisons" if split == "train" else split
    for rng, record, prompt, subreddit, distractions in stories(seed + 1_000_003, use, count):
        first = write_summary(rng, record, distractions)
        while (second := write_summary(rng, record, distractions)) == first:
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
