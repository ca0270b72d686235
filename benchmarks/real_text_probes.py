"""Whether the judge apart, the training reward and the policies mind the post: on held-out Reddit posts.

    python benchmarks/real_text_probes.py --in .    # after dvc repro with profiles/smollm2.yaml there
    python benchmarks/real_text_probes.py           # the tables, from what was kept

First, texts that nobody need have trained for are set against SFT's and PPO's summaries, both greedy: the post's title,
its beginning, one sentence for all posts, PPO's summary of another post, PPO's with its words shuffled. A scorer whose
verdict on PPO means something prefers PPO to each of them. PPO's own stand beside, where they do not copy the title.

Second, of each system's summaries the share whose own post is the nearest of all held-out posts, by the embeddings of
models/own/minilm (means over tokens, cosines): whether they are about their posts at all.

Kept is benchmarks/real_text_probes.csv; intervals draw posts.
"""

import argparse
import os
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import markdown, rows_of
from minirlhf.evaluation.text import copies_title
from minirlhf.evaluation.winrate import wins_by_score
from minirlhf.runtime.files import read_jsonl, write_csv
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params
from minirlhf.statistics.bootstrap import Bootstrap
from minirlhf.text.prompts import parse_prompt

TABLE = Path(__file__).resolve().with_suffix(".csv")
COLUMNS = ("of", "by", "against", "value", "low", "high")
SCORERS = {"judge": "the judge apart", "reward": "the training reward"}
AGAINST = {"sft_greedy": "SFT", "ppo_greedy": "PPO"}
WORDS = 20  # of a post's beginning: SFT's and the authors' summaries have 17
SAME = "I want to know what I should do."
SYSTEMS = ("reference", "sft_greedy", "ppo_greedy", "sft", "ppo", "sft_best", "ppo_best")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="folder", type=Path, help="of a run that ended")
    args = parser.parse_args(argv)
    if args.folder:
        os.chdir(args.folder)
        write_csv(TABLE, probe(), COLUMNS)
    print(*tables(rows_of(TABLE)), sep="\n\n")


def probe() -> list[dict]:
    """Rows of TABLE, of the run in the working folder."""
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
    draws, found = Bootstrap(params.seed, params.evaluate.bootstrap), []

    def keep(of: str, by: str, against: str, values: np.ndarray) -> None:
        rate = draws.mean(np.asarray(values, float)).as_json()
        found.append({"of": of, "by": by, "against": against, **rate})

    free = np.array([not copies_title(post.title, text) for post, text in zip(posts, ours, strict=True)])
    scorers = {"judge": load_judge(params, device), "reward": load_reward("models/reward", params, device)}
    for key, scorer in scorers.items():
        for name, texts in probes.items():
            scores = np.array(call_reward(scorer, prompts, texts, [True] * len(rows), [[]] * len(rows)), float)
            for against in AGAINST:
                keep(name, key, against, wins_by_score(scores, np.array([row[against][key] for row in rows])))
        ours_scored, before = (np.array([row[name][key] for row in rows]) for name in ("ppo_greedy", "sft_greedy"))
        keep("PPO's, where it does not copy the title", key, "sft_greedy", wins_by_score(ours_scored, before)[free])
    of_posts = embedded([f"{post.title} {post.body}" for post in posts])
    for name in SYSTEMS:
        alike = embedded([row[name]["summary"].strip() or "." for row in rows]) @ of_posts.T
        keep(name, "nearest", "", alike.argmax(1) == np.arange(len(rows)))
    return found


def tables(rows: list[dict]) -> tuple[str, str]:
    """What is preferred to the policies' summaries, and how many of each system's are nearest to their own post."""
    said = {
        (row["of"], row["by"], row["against"]): "{:.0%} ({:.0%} to {:.0%})".format(
            *(float(row[c]) for c in COLUMNS[3:])
        )
        for row in rows
    }
    pairs = [(by, against) for by in SCORERS for against in AGAINST]
    names = dict.fromkeys(of for of, by, _ in said if by in SCORERS)
    header = [f"beats {AGAINST[against]}, by {SCORERS[by]}" for by, against in pairs]
    preferred = markdown(
        ["in the place of a summary", *header],
        [[name, *(said.get((name, *pair), "") for pair in pairs)] for name in names],
    )
    nearest = [[of, text] for (of, by, _), text in said.items() if by == "nearest"]
    return preferred, markdown(["summaries", "whose own post is the nearest"], nearest)


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
