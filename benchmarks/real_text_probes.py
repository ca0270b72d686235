"""Whether the judge apart, the training reward and the policies mind the post: on held-out Reddit posts.

    python benchmarks/real_text_probes.py    # after dvc repro with profiles/smollm2.yaml

First, texts that nobody need have trained for are set against SFT's and PPO's summaries, both greedy: the post's title,
its beginning, one sentence for all posts, PPO's summary of another post, PPO's with its words shuffled. A scorer whose
verdict on PPO means something prefers PPO to each of them.

Second, of each system's summaries the share whose own post is the nearest of all held-out posts, by the embeddings of
models/own/minilm (means over tokens, cosines): whether they are about their posts at all.
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
SYSTEMS = ("reference", "sft_greedy", "ppo_greedy", "sft", "ppo", "sft_best", "ppo_best")


def main(argv: list[str] | None = None) -> None:
    params = load_params("params.yaml")
    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.evaluation.run import load_judge, load_reward
    from minirlhf.rewards.text import call_reward
    from minirlhf.runtime.device import choose_device

    rows, device = read_jsonl("details/summaries.jsonl"), choose_device(params.device, params.precision)
    prompts, ours = [row["post"] for row in rows], [row["ppo_greedy"]["summary"] for row in rows]
    posts = [parse_prompt(prompt) for prompt in prompts]
    probes = {
        "the title": [post.title for post in posts],
        f"the post's first {WORDS} words": [" ".join(post.body.split()[:WORDS]) for post in posts],
        f'"{SAME}"': [SAME] * len(rows),
        "PPO's summary of another post": ours[1:] + ours[:1],
        "PPO's words, shuffled": [" ".join(random.Random(at).sample(words := text.split(), len(words)))
                                  for at, text in enumerate(ours)],
    }  # fmt: skip
    draws = Bootstrap(params.seed, params.evaluate.bootstrap)

    def said(values) -> str:
        rate = draws.mean(np.asarray(values, float))
        return f"{rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})"

    scorers = {"judge": load_judge(params, device), "reward": load_reward("models/reward", params, device)}
    lines = []
    for name, texts in probes.items():
        line = [name]
        for key, scorer in scorers.items():
            scores = np.array(call_reward(scorer, prompts, texts, [True] * len(rows), [[]] * len(rows)), float)
            for against in ("sft_greedy", "ppo_greedy"):
                line.append(said(wins_by_score(scores, np.array([row[against][key] for row in rows]))))
        lines.append(line)
    header = [f"beats {policy}, by the {scorer}" for scorer in ("judge apart", "training reward")
              for policy in ("SFT", "PPO")]  # fmt: skip
    print(markdown(["in the place of a summary", *header], lines))

    of_posts = embedded([f"{post.title} {post.body}" for post in posts])
    found = []
    for name in SYSTEMS:
        alike = embedded([row[name]["summary"].strip() or "." for row in rows]) @ of_posts.T
        found.append([name, said(alike.argmax(1) == np.arange(len(rows)))])
    print("", markdown(["summaries", "whose own post is the nearest"], found), sep="\n")


def embedded(texts: list[str], folder: str = "models/own/minilm") -> np.ndarray:
    """[B, width] of length 1: the mean of an encoder's last states over the tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for start in range(0, len(texts), 32):
        part = tokenizer(texts[start : start + 32], padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = model(**part).last_hidden_state
        mask = part["attention_mask"][..., None]
        found.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(found).numpy()


if __name__ == "__main__":
    run(main)
