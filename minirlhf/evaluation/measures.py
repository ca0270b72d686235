"""Everything that is measured on one summary, and what it comes to for a system."""

from collections.abc import Callable, Sequence

import numpy as np

from minirlhf.evaluation import text
from minirlhf.evaluation.rouge import MEASURES as ROUGE
from minirlhf.evaluation.rouge import rouge
from minirlhf.sampling.summaries import Summaries
from minirlhf.statistics.bootstrap import Bootstrap, Estimate
from minirlhf.text.chat import spoken
from minirlhf.text.prompts import parse_prompt

Measures = dict[str, np.ndarray]  # name -> [B], one value a summary
# The measures of every system, in the order in which they are written; gold and its parts follow where there are any.
ALWAYS = ("reward", *ROUGE, "length", "ended", "coverage", "density", "title", "repetition")
GOLD_PART, FACT = "gold_", "fact_"


def measure(
    prompts: Sequence[str],
    references: Sequence[str],
    summaries: Summaries,
    rewards: Sequence[float],
    judge: Callable | None = None,
    records: Sequence[dict] | None = None,
) -> Measures:
    """Measure one system's summaries.

    Args:
        rewards: score of each summary by the reward model that PPO was trained on.
        judge: the gold judge `(summary, record, ended)` of the embedded world, and the `records` it needs.

    Returns:
        for each of `ALWAYS` one value a summary; where there is a judge, `gold`, its `gold_PART`s and, 1 or 0 for
        each kind of fact, `fact_SLOT_covered` and `fact_SLOT_wrong`. `length` counts tokens, EOS included; `ended`
        and `title` (`text.copies_title`) are 1 or 0; the others are described in `rouge.py`, `text.py` and
        `world/judge.py`.
    """
    titles = [post.title if (post := parse_prompt(prompt)) else "" for prompt in prompts]
    found = {
        "reward": np.asarray(rewards, float),
        **rouge(summaries.texts, list(references)),
        "length": summaries.lengths,
        "ended": summaries.ended.astype(float),
        **text.describe([post_text(prompt) for prompt in prompts], summaries.texts),
    }
    found["title"] = np.array([float(text.copies_title(*pair)) for pair in zip(titles, summaries.texts, strict=True)])
    found = {name: found[name] for name in ALWAYS}
    if judge is not None:
        triples = zip(summaries.texts, records, summaries.ended.tolist(), strict=True)
        found |= _gold([judge(*triple) for triple in triples])
    return found


def _gold(judgements: list) -> Measures:
    found = {"gold": np.array([judgement.score for judgement in judgements], float)}
    for part in judgements[0].parts:
        found[GOLD_PART + part] = np.array([judgement.parts[part] for judgement in judgements], float)
    for slot in judgements[0].facts:
        for status in ("covered", "wrong"):
            told = [judgement.facts[slot] == status for judgement in judgements]
            found[f"{FACT}{slot}_{status}"] = np.array(told, float)
    return found


def post_text(prompt: str) -> str:
    """What an author can copy from: title and post, without the headings of the prompt format."""
    post = parse_prompt(prompt)
    return f"{post.title}\n{post.body}" if post else spoken(prompt)


def means(measures: Measures, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The mean of every measure over posts, with its interval."""
    return {name: bootstrap.mean(values) for name, values in measures.items()}


def gains(after: Measures, before: Measures, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The mean paired difference of every measure, with its interval: what changed from one system to another."""
    return {name: bootstrap.mean(after[name] - before[name]) for name in after}


def variety(summaries: Summaries) -> dict[str, float]:
    """Of a set of summaries as a whole: `distinct1`, `distinct2` and `duplicates` (see text.py); and `entropy`.

    Entropy is in nats a token at the sampling temperature, estimated by minus the mean log-probability of the sampled
    tokens; absent for the authors, whose distribution is not known.
    """
    found = {
        "distinct1": text.distinct(summaries.texts, 1),
        "distinct2": text.distinct(summaries.texts, 2),
        "duplicates": text.duplicates(summaries.texts),
    }
    if summaries.logprobs is not None:
        found["entropy"] = -summaries.logprobs.sum() / summaries.lengths.sum()
    return found
