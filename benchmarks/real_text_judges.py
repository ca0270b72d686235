"""What several judges say of the same summaries: PPO's against SFT's on Reddit posts, both decoded greedily.

    python benchmarks/real_text_judges.py --data shared/data --models SMOLLM2 MINILM --runs 'PPO=run1,run2' 'other=run3'

A run is a folder in which the pipeline ended. Judges are heads on the frozen models, learnt on the judge's half of the
comparisons: alone, with other posts' summaries as worse ones, and with shuffled words too (as benchmarks/real_text.py
makes the one that judges). None has part in a training; where those that may judge disagree, none is to be believed.
Intervals draw posts; of several runs each post has the mean.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import judges, real_text
from benchmarks.runs import interval, markdown
from minirlhf.evaluation.winrate import wins_by_score
from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import run, set_up
from minirlhf.statistics.bootstrap import Bootstrap


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tldr, tldr_more and tldr_gpt4")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders; the first is the policy's")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER,FOLDER", help="runs that ended")
    parser.add_argument("--work", type=Path, default=Path("runs/judges"), help="for features")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the features")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="rows read of a file")
    args = parser.parse_args(argv)
    set_up(0, args.threads, "native")
    runs = {name: [read_jsonl(f"{folder}/details/summaries.jsonl") for folder in folders.split(",")]
            for name, folders in (each.split("=", 1) for each in args.runs)}  # fmt: skip
    greedy = {summary for rows in runs.values() for mine in rows for row in mine for summary in pair(row)}
    compared = judges.comparisons(args, "tldr_gpt4")
    rewards, judged = judges.cut(compared)
    args.policy = args.models[0]  # whose tokens say which posts are read whole
    unfit = real_text.unfit(judged, real_text.posts(args)["train"][: real_text.AUTHORS])
    learnt = {
        "comparisons": judged,
        "and other posts' summaries": judged + unfit[: len(unfit) // 2],
        "and shuffled words": judged + unfit,
    }
    lines = []
    for model in args.models:
        known = judges.features(model, "tldr_gpt4", compared, args)
        known |= judges.features(model, "unfit-judge", unfit, args)
        order = sorted(greedy)
        written = dict(zip(order, judges.extract(model, order, args.precision), strict=True))
        for name, rows in learnt.items():
            head = real_text.steady_head(rows, known)
            line = judges.line(model.name, name, "", rewards, judges.score(known, head), set())
            scores = judges.score(written, head)
            lines.append([*line[:2], *line[3:5], line[6], *(verdict(rows, scores) for rows in runs.values())])
    header = ["model", "judge learnt from", "right on the reward's comparisons", "minus the best rule of length"]
    print(markdown([*header, "may judge", *(f"{name} beats SFT" for name in runs)], lines))


def pair(row: dict) -> list[tuple[str, str, bool]]:
    """The policy's and SFT's greedy summaries of a row of summaries.jsonl, as judges read them."""
    return [(row["post"], row[name]["summary"], True) for name in ("ppo_greedy", "sft_greedy")]


def verdict(runs: list[list[dict]], scores: dict) -> str:
    """The share of posts on which the policy's is preferred, over runs."""
    won = []
    for rows in runs:
        ours, before = (np.array([scores[summary] for summary in each]) for each in zip(*map(pair, rows), strict=True))
        won.append(wins_by_score(ours, before))
    return interval(Bootstrap(0, 1000).mean(np.mean(won, axis=0)), ".0%")


if __name__ == "__main__":
    run(main)
