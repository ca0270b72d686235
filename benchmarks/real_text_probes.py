"""What the judge apart says of summaries that nobody need have trained for, on the held-out Reddit posts.

    python benchmarks/real_text_probes.py    # after dvc repro with profiles/smollm2.yaml

Each is set against SFT's and PPO's summaries, each at its own best temperature: the post's title, its beginning, one
sentence for all posts, another post's summary by PPO, PPO's with its words shuffled. A judge whose verdict on PPO means
something prefers PPO to each of them.
"""

import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import markdown
from minirlhf.evaluation.winrate import wins_by_score
from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.prompts import parse_prompt

WORDS = 20  # of a post's beginning: SFT's and the authors' summaries have 17
SAME = "I want to know what I should do."


def main(argv: list[str] | None = None) -> None:
    params = load_params("params.yaml")
    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.evaluation.run import load_judge
    from minirlhf.rewards.text import call_reward
    from minirlhf.runtime.device import choose_device

    rows = read_jsonl("details/summaries.jsonl")
    prompts, ours = [row["post"] for row in rows], [row["ppo_best"]["summary"] for row in rows]
    posts = [parse_prompt(prompt) for prompt in prompts]
    probes = {
        "the title": [post.title for post in posts],
        f"the post's first {WORDS} words": [" ".join(post.body.split()[:WORDS]) for post in posts],
        f'"{SAME}"': [SAME] * len(rows),
        "PPO's summary of another post": ours[1:] + ours[:1],
        "PPO's words, shuffled": [" ".join(random.Random(at).sample(words := text.split(), len(words)))
                                  for at, text in enumerate(ours)],
    }  # fmt: skip
    judge = load_judge(params, choose_device(params.device, params.precision))
    known = {name: np.array([row[name]["judge"] for row in rows]) for name in ("sft_best", "ppo_best", "reference")}
    draws, lines = Bootstrap(params.seed, params.evaluate.bootstrap), []
    for name, texts in probes.items():
        scores = np.array(call_reward(judge, prompts, texts, [True] * len(rows), [[]] * len(rows)), float)
        won = [draws.mean(wins_by_score(scores, known[against])) for against in known]
        lines.append([name, *(f"{rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})" for rate in won)])
        print(name, file=sys.stderr)
    print(markdown(["in the place of a summary", "beats SFT", "beats PPO", "beats the author"], lines))


if __name__ == "__main__":
    run(main)
