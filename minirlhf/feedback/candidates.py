"""Summaries sampled from a policy for annotators to compare, as Stiennon et al. (2020) collected theirs.

Comparisons of authors' summaries alone teach a reward model little about what a policy writes.
"""

import random
from typing import TYPE_CHECKING

from minirlhf.runtime.progress import Progress
from minirlhf.sampling.draw import episode_seeds
from minirlhf.sampling.generate import generate
from minirlhf.text.prompts import decode_response, encode_prompts
from minirlhf.world.annotators import compare_all

if TYPE_CHECKING:
    from minirlhf.settings.params import Params


def sample_candidates(policy, tokenizer, posts: list[dict], params: "Params", first_episode: int = 0) -> list[dict]:
    """Sample `collect.candidates` summaries a post, and add the author's.

    Args:
        posts: rows of prompt and completion (and record, in the embedded world).
        first_episode: where the random streams begin; splits that must not share them begin apart.

    Returns:
        rows of prompt, summaries (pairs of a text and whether it ended by itself, the author's last), and of the post's
        messages and record, where it has them.
    """
    count = params.collect.candidates
    with Progress(len(posts) * count, unit="summaries", desc="candidates") as progress:
        sampled = generate(
            policy,
            encode_prompts(tokenizer, [post["prompt"] for post in posts]),
            max_new_tokens=params.data.max_response_tokens,
            temperature=params.collect.temperature,
            seeds=episode_seeds(params.seed, first_episode, len(posts) * count),
            samples_per_prompt=count,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            progress=progress.update,
        )
    texts = [decode_response(tokenizer, ids) for ids in sampled.token_ids()]
    candidates = list(zip(texts, sampled.ended.tolist(), strict=True))
    rows = []
    for index, post in enumerate(posts):
        summaries = candidates[index * count : (index + 1) * count] + [(post["completion"], True)]
        known = {key: post[key] for key in ("messages", "record") if key in post}
        rows.append({"prompt": post["prompt"], "summaries": summaries} | known)
    return rows


def compare_candidates(rows: list[dict], seed: int, first_episode: int = 0) -> list[dict]:
    """Let a simulated annotator compare every two summaries of each post of the embedded world.

    Args:
        rows, first_episode: as of `sample_candidates`.

    Returns:
        rows of prompt, chosen, rejected, chosen_ended, rejected_ended, record.
    """
    compared = []
    for index, row in enumerate(rows):
        rng = random.Random(f"{seed}/annotator/{first_episode + index * (len(row['summaries']) - 1)}")
        compared += compare_all(rng, row, [tuple(summary) for summary in row["summaries"]])
    return compared
