"""Reddit posts for profiles/smollm2.yaml, and a judge that has no part in the training.

    python benchmarks/real_text.py --data shared/data --policy SMOLLM2 --encoder MINILM
    minirlhf profile smollm2 && minirlhf seeds 1 2 3

Written are

- data/own/posts: posts of tldr and tldr_more that the policy reads whole (LENGTH tokens at most), TEST and VALIDATION
  of them held out
- data/own/comparisons: those of tldr_gpt4 on one half of its posts, for the reward model; to train on also those in
  which a summary of another post is the worse one, and one whose words are shuffled
- models/own/judge: the policy's model before any training, frozen, with a head learnt on the comparisons of the other
  half, and on the same two kinds; models/own/smollm2 and models/own/minilm: links to the two folders

Whether the judge may judge is printed: on the reward's comparisons, which it has not seen, it has to be right more
often than the best rule of length, with an interval over posts clear of 0 (docs/real_text.md). `judge` is how the
evaluate stage asks it (evaluate.judge of the profile).
"""

import argparse
import random
import sys
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import judges
from benchmarks.examine_real import FOLDS, folds_of
from benchmarks.runs import interval, markdown
from minirlhf.reward_modeling.quality import share
from minirlhf.runtime.files import read_jsonl, replace_folder, write_json, write_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import load_params
from minirlhf.statistics.bootstrap import Bootstrap

LENGTH, SUMMARY = 192, 53  # tokens of a post and of an author's summary, at most
TEST, VALIDATION = 220, 100  # posts held out
# Summaries of each compared post, and authors', that are set against other posts': for the judge, and for the reward.
EACH, AUTHORS, REWARD_AUTHORS = 10, 500, 300
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # C of the judge's regression
HELD_OUT = 12  # posts of the reward's comparisons for each of its other splits


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tldr, tldr_more and tldr_gpt4")
    parser.add_argument("--policy", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="rows read of a file")
    parser.add_argument("--into", type=Path, default=Path(), help="the folder that has data/ and models/")
    parser.add_argument("--work", type=Path, default=Path("runs/judges"), help="for features")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the features")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    set_up(0, args.threads, "native")
    own = args.into / "data" / "own"
    written = posts(args)
    for split, rows in written.items():
        write_jsonl(own / "posts" / f"{split}.jsonl", rows)
        print(f"posts, {split}: {len(rows)}")
    compared = judges.comparisons(args, "tldr_gpt4")
    rewards, judged = judges.cut(compared)
    splits = by_post(rewards)
    splits["train"] += unfit(splits["train"], written["train"][AUTHORS : AUTHORS + REWARD_AUTHORS])
    for split, rows in splits.items():
        write_jsonl(own / "comparisons" / f"{split}.jsonl", rows)
        print(f"comparisons, {split}: {len(rows)} on {len({row['prompt'] for row in rows})} posts")
    models = args.into / "models" / "own"
    for name, folder in (("smollm2", args.policy), ("minilm", args.encoder)):
        models.mkdir(parents=True, exist_ok=True)
        if not (models / name).exists():
            (models / name).symlink_to(folder.resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    of_models, of_authors = mismatched(rewards, [], 4), mismatched([], written["validation"], 0)
    others = {
        "learnt from": unfit(judged, written["train"][:AUTHORS]),
        "another post's, chat models'": of_models,
        "another post's, authors'": of_authors,
        "its words shuffled, chat models'": shuffled(of_models),
        "its words shuffled, authors'": shuffled(of_authors),
    }
    known = judges.features(args.policy, "tldr_gpt4", compared, args)
    learnt, *probes = others.values()
    known |= judges.features(args.policy, "unfit-judge", learnt, args)
    known |= judges.features(args.policy, "unfit-probes", [row for rows in probes for row in rows], args)
    make_judge(args.policy, known, rewards, judged, others, models / "judge")


def posts(args: argparse.Namespace) -> dict[str, list[dict]]:
    """Posts by split, in one random order."""
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.text.prompts import encode

    tokenizer = load_tokenizer(args.policy)

    def fits(row: dict) -> bool:
        return all(
            len(encode(tokenizer, row[name])) <= most for name, most in (("completion", SUMMARY), ("prompt", LENGTH))
        )

    files = [args.data / name / f"{split}.jsonl" for name in ("tldr", "tldr_more") for split in ("train", "validation")]
    once = {row["prompt"]: row for file in files for row in read_jsonl(file)[: args.limit] if fits(row)}
    rows = list(once.values())
    random.Random(0).shuffle(rows)
    ends = TEST, TEST + VALIDATION
    return {"test": rows[: ends[0]], "validation": rows[ends[0] : ends[1]], "train": rows[ends[1] :]}


def by_post(rows: list[dict]) -> dict[str, list[dict]]:
    """Comparisons by split, no post in two of them."""
    order = sorted({row["prompt"] for row in rows})
    random.Random(0).shuffle(order)
    held = {"test": set(order[:HELD_OUT]), "validation": set(order[HELD_OUT : 2 * HELD_OUT])}
    held["train"] = set(order) - held["test"] - held["validation"]
    return {split: [row for row in rows if row["prompt"] in mine] for split, mine in held.items()}


def unfit(compared: list[dict], posts: list[dict]) -> list[dict]:
    """Comparisons in which the worse summary is another post's, or has its words in another order: what reward and
    judge learn beside people's and GPT-4's, which are all of whole summaries of one post. Who learns from nothing else
    sees how a summary is written and not what of, and is right on half of these."""
    pairs = mismatched(compared, posts, EACH)
    return pairs + shuffled(pairs)


def mismatched(compared: list[dict], posts: list[dict], each: int) -> list[dict]:
    """Comparisons of a post's summary, chosen, with one of another post, rejected: `each` of those that were compared,
    and one of each author's."""
    rng, found = random.Random(0), []
    prompts = sorted({row["prompt"] for row in compared})
    of = {prompt: sorted({row["chosen"] for row in compared if row["prompt"] == prompt}) for prompt in prompts}
    for prompt in prompts:
        for at in range(each):
            other = rng.choice([name for name in prompts if name != prompt])
            own = of[prompt][at % len(of[prompt])]
            found.append({"prompt": prompt, "chosen": own, "rejected": rng.choice(of[other])})
    for at, post in enumerate(posts):
        rejected = posts[(at + 1) % len(posts)]["completion"]
        found.append({"prompt": post["prompt"], "chosen": post["completion"], "rejected": rejected})
    return found


def shuffled(rows: list[dict]) -> list[dict]:
    """Comparisons of the chosen summaries with their own words in another order."""
    rng, found = random.Random(0), []
    for row in rows:
        words = row["chosen"].split()
        rng.shuffle(words)
        found.append(row | {"rejected": f" {' '.join(words)}"})
    return found


@cache
def _judge():
    from minirlhf.rewards.model import RewardModel

    return RewardModel.load("models/own/judge", batch_size=64, precision=load_params("params.yaml").precision)


def judge(prompts: list[str], responses: list[str]) -> list[float]:
    """Scores; every summary is read as one that ended, since the judge's head has seen no other."""
    return _judge()(prompts, responses, [True] * len(responses))


def steady_head(rows: list[dict], known: judges.Features) -> np.ndarray:
    """A head [width], regularized as strongly as keeps it, on posts left out, within a standard error of the most often
    right (the one-standard-error rule; Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 7.10).

    The most often right head is hardly more so, and follows the comparisons that it happened to learn from: whether two
    that learnt from disjoint halves agree is asked by benchmarks/real_text_agreement.py.
    """
    posts, post = np.unique([row["prompt"] for row in rows], return_inverse=True)
    fold_of = folds_of(posts.tolist())
    folds = np.array([fold_of[row["prompt"]] for row in rows])
    right = np.zeros((len(STRENGTHS), len(rows)))
    for fold in range(FOLDS):
        inner, outer = ([row for row in rows if (fold_of[row["prompt"]] == fold) == side] for side in (False, True))
        for at, strength in enumerate(STRENGTHS):
            right[at, folds == fold] = judges.right(outer, known, judges.learn(inner, known, strength))
    best = right[right.mean(1).argmax()]
    error = np.linalg.norm(np.bincount(post, best - best.mean())) / len(rows)  # comparisons of a post go together
    return judges.learn(rows, known, STRENGTHS[int((right.mean(1) >= best.mean() - error).argmax())])


def make_judge(
    backbone: Path,
    known: judges.Features,
    rewards: list[dict],
    judged: list[dict],
    others: dict[str, list[dict]],
    folder: Path,
) -> None:
    """Learn the judge's head, say whether it may judge, and write it as a reward model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from minirlhf.hub.configs import read_tokenizer

    learnt, *probes = others
    heads = {"comparisons": steady_head(judged, known)}
    heads["comparisons and unfit summaries"] = head = steady_head(judged + others[learnt], known)
    lines, draws = [], Bootstrap(0, 1000)
    for name, weights in heads.items():
        line = judges.line(backbone.name, name, "the reward's half", rewards, judges.score(known, weights), set())
        for rows in map(others.get, probes):
            line.append(interval(share(judges.right(rows, known, weights), rows, draws), ".3f"))
        lines.append(line)
    print(markdown([*judges.HEADER, *(f"prefers it to {probe}" for probe in probes)], lines))
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, pad_token_id=0)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(head, dtype=torch.float32)[None])
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        read_tokenizer(backbone).save_pretrained(new)
        write_json(new / "reward.json", {"format": "concat"})


if __name__ == "__main__":
    run(main)
