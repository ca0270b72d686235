"""Reddit posts for profiles/smollm2.yaml, and a judge that has no part in the training.

    python benchmarks/real_text.py --data shared/data --policy SMOLLM2 --encoder MINILM
    minirlhf profile smollm2 && minirlhf seeds 1 2 3

Written are

- data/own/posts: posts of tldr and tldr_more that the policy reads whole (LENGTH tokens at most), TEST and VALIDATION
  of them held out
- data/own/comparisons: those of tldr_gpt4 on one half of its posts, for the reward model
- models/own/judge: the policy's model before any training, frozen, with a head learnt on the comparisons of the other
  half; models/own/smollm2 and models/own/minilm: links to the two folders

Whether the judge may judge is printed: on the reward's comparisons, which it has not seen, it has to be right more
often than the best rule of length, with an interval over posts clear of 0 (docs/real_text.md). `judge` is how the
evaluate stage asks it (evaluate.judge of the profile).
"""

import argparse
import random
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import judges
from benchmarks.runs import markdown
from minirlhf.runtime.files import read_jsonl, replace_folder, write_json, write_jsonl
from minirlhf.runtime.stage import run, set_up

LENGTH, SUMMARY = 192, 53  # tokens of a post and of an author's summary, at most
TEST, VALIDATION = 220, 100  # posts held out
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
    for split, rows in posts(args).items():
        write_jsonl(own / "posts" / f"{split}.jsonl", rows)
        print(f"posts, {split}: {len(rows)}")
    compared = judges.comparisons(args, "tldr_gpt4")
    rewards, judged = judges.cut(compared)
    for split, rows in by_post(rewards).items():
        write_jsonl(own / "comparisons" / f"{split}.jsonl", rows)
        print(f"comparisons, {split}: {len(rows)} on {len({row['prompt'] for row in rows})} posts")
    models = args.into / "models" / "own"
    for name, folder in (("smollm2", args.policy), ("minilm", args.encoder)):
        models.mkdir(parents=True, exist_ok=True)
        if not (models / name).exists():
            (models / name).symlink_to(folder.resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    known = judges.features(args.policy, "tldr_gpt4", compared, args)
    make_judge(args.policy, known, rewards, judged, models / "judge")


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


@cache
def _judge():
    from minirlhf.rewards.model import RewardModel

    return RewardModel.load("models/own/judge", batch_size=64)


def judge(prompts: list[str], responses: list[str]) -> list[float]:
    """Scores; every summary is read as one that ended, since the judge's head has seen no other."""
    return _judge()(prompts, responses, [True] * len(responses))


def make_judge(backbone: Path, known: judges.Features, rewards: list[dict], judged: list[dict], folder: Path) -> None:
    """Learn the judge's head, say whether it may judge, and write it as a reward model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.reward_modeling.quality import summaries_of

    head = judges.head_of(judged, known)
    scores = judges.score({summary: known[summary] for summary in summaries_of(rewards)}, head)
    row = judges.line(backbone.name, "the other half", "the reward's half", rewards, scores, set())
    print(markdown(judges.HEADER, [row]))
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, pad_token_id=0)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(head, dtype=torch.float32)[None])
    with replace_folder(folder) as new:
        model.save_pretrained(new)
        read_tokenizer(backbone).save_pretrained(new)
        write_json(new / "reward.json", {"format": "concat"})


if __name__ == "__main__":
    run(main)
