"""Collect comparisons of what a policy writes: sample summaries of posts, and have annotators compare them.

Simulated annotators do it at once. People do it afterwards, on the page that `minirlhf label` opens, and their votes
are in data/votes/candidates.

A later round of feedback (docs/rounds.md) has an aligned policy write, and keeps the comparisons of those before it.

In:  prepared posts; the policy, which is the SFT model (collect.policy); of a later round the comparisons before it.
Out: data/collected/candidates.jsonl, the summaries; of simulated annotators also {train,validation,test}.jsonl, their
     comparisons, after those before. An empty folder where nothing is sampled.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import replace_folder, write_jsonl
from minirlhf.runtime.resume import resume_folder, saved
from minirlhf.runtime.stage import run, set_up
from minirlhf.runtime.trackers import Trackers
from minirlhf.settings.params import Params, load_params
from minirlhf.text.chat import read_prepared

SHOWN = 20  # posts in the trackers' table
HELD_OUT_POSTS = 200  # of validation and test each, for which candidates are compared too
SPLITS = ("train", "validation", "test")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--policy", type=Path, help="folder of who writes (default: collect.policy of the params)")
    parser.add_argument("--output", type=Path, default=Path("data/collected"))
    parser.add_argument("--round", type=int, help="number of a later round, which has posts of its own")
    parser.add_argument("--before", type=Path, help="folder of the comparisons up to that round, which come first")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    if params.collect.candidates == 0:
        with replace_folder(args.output):
            return  # DVC expects the folder
    posts = {split: read_prepared(args.posts / f"{split}.jsonl", ("prompt", "completion")) for split in SPLITS}

    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.runtime.device import choose_device

    device = choose_device(params.device)
    settings = params.model_dump(mode="json", include={"seed", "threads", "collect"})
    settings |= {"device": device, "max_response_tokens": params.data.max_response_tokens, "round": args.round}
    folder = args.policy or Path(params.collect.policy)
    trackers = Trackers("collect", params.trackers, params.model_dump(mode="json"))
    inputs = [__file__, args.posts, folder] + [args.before] * (args.before is not None)
    with trackers, resume_folder("collect", settings, inputs) as resume:
        candidates = sample(folder, posts, params, device, resume, 0 if args.round is None else args.round + 1)
        shown = candidates["test"][1][:SHOWN]
        trackers.table("candidates", [{"prompt": row["prompt"], **written(row["summaries"])} for row in shown])
        with replace_folder(args.output) as output:
            rows = ({"split": split, **row} for split, (_, rows) in candidates.items() for row in rows)
            write_jsonl(output / "candidates.jsonl", rows)
            if params.collect.annotators == "simulated":
                from minirlhf.feedback.candidates import compare_candidates

                for split, (first_episode, rows) in candidates.items():
                    before = [] if args.before is None else read_prepared(args.before / f"{split}.jsonl")
                    write_jsonl(
                        output / f"{split}.jsonl", before + compare_candidates(rows, params.seed, first_episode)
                    )


def written(summaries: list[tuple[str, bool]]) -> dict[str, str]:
    """The texts of a post's summaries, of which the author's is the last."""
    *sampled, author = (text for text, _ in summaries)
    return {"author": author} | {f"policy {number}": text for number, text in enumerate(sampled, start=1)}


def sample(
    policy: Path, posts: dict[str, list[dict]], params: Params, device: str, resume: Path, rounds_before: int
) -> dict[str, tuple[int, list[dict]]]:
    """By split the first episode and the candidates. They are kept in `resume`, where a killed run finds them.

    A round has random streams of its own, and its train posts follow those of the `rounds_before` it; after the last
    post comes the first. The held-out posts are the same in all.
    """
    from minirlhf.feedback.candidates import sample_candidates
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy

    model, tokenizer = load_policy(policy).to(device), load_tokenizer(policy)
    train, count = posts["train"], min(params.collect.posts, len(posts["train"]))
    chosen_of = {split: posts[split][:HELD_OUT_POSTS] for split in SPLITS}
    chosen_of["train"] = [train[(rounds_before * count + index) % len(train)] for index in range(count)]
    first_episode = rounds_before * sum(map(len, chosen_of.values())) * params.collect.candidates
    candidates = {}
    for split, chosen in chosen_of.items():
        kept = resume / f"{split}.jsonl"
        if not kept.exists():
            write_jsonl(kept, sample_candidates(model, tokenizer, chosen, params, first_episode))
        candidates[split] = first_episode, read_prepared(kept)
        saved(f"the candidates for {split}")
        first_episode += len(chosen) * params.collect.candidates
    return candidates


if __name__ == "__main__":
    run(main)
