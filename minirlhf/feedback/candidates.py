"""Summaries sampled from a policy for annotators to compare, as Stiennon et al. (2020) collected theirs.

Comparisons of authors' summaries alone teach a reward model little about what a policy writes.
"""

import random
from typing import TYPE_CHECKING

from minirlhf.runtime.progress import Progress
from minirlhf.sampling.draw import episode_seeds
from minirlhf.sampling.generate import generate
from minirlhf.text.prompts import decode, encode
from minirlhf.world.annotators import compare_all

if TYPE_CHECKING:
    from minirlhf.settings.params import Params


def collect_comparisons(policy, tokenizer, posts: list[dict], params: "Params", first_episode: int = 0) -> list[dict]:
    """Sample `collect.candidates` summaries a post, add the author's, and let an annotator compare every two.

    Args:
        posts: rows of the embedded world (prompt, completion, record).
        first_episode: where the random streams begin; splits that must not share them begin apart.

    Returns:
        rows of prompt, chosen, rejected, chosen_ended, rejected_ended, record.
    """
    count = params.collect.candidates
    with Progress(len(posts) * count, unit="summaries", desc="candidates") as progress:
        sampled = generate(
            policy,
            [encode(tokenizer, post["prompt"]) for post in posts],
            max_new_tokens=params.data.max_response_tokens,
            temperature=params.collect.temperature,
            seeds=episode_seeds(params.seed, first_episode, len(posts) * count),
            samples_per_prompt=count,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            progress=progress.update,
        )
    texts = [decode(tokenizer, ids) for ids in sampled.token_ids()]
    candidates = list(zip(texts, sampled.ended.tolist(), strict=True))
    rows = []
    for index, post in enumerate(posts):
        rng = random.Random(f"{params.seed}/annotator/{first_episode + index * count}")
        summaries = candidates[index * count : (index + 1) * count] + [(post["completion"], True)]
        rows += compare_all(rng, post, summaries)
    return rows
