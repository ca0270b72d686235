"""Collect comparisons of what the SFT model writes: sample summaries of posts, and have annotators compare them.

In:  prepared posts, the SFT model.
Out: data/collected/{train,validation,test}.jsonl; an empty folder where there are no annotators to ask.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import replace_folder, write_jsonl
from minirlhf.runtime.resume import resume_folder, saved
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import Params, load_params
from minirlhf.text.chat import read_prepared

HELD_OUT_POSTS = 200  # of validation and test each, for which candidates are compared too
SPLITS = ("train", "validation", "test")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--output", type=Path, default=Path("data/collected"))
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
    settings |= {"device": device, "max_response_tokens": params.data.max_response_tokens}
    with resume_folder("collect", settings, (__file__, args.posts, args.sft)) as resume:
        collected = collect(args.sft, posts, params, device, resume)
        with replace_folder(args.output) as folder:
            for split, comparisons in collected.items():
                write_jsonl(folder / f"{split}.jsonl", comparisons)


def collect(
    sft: Path, posts: dict[str, list[dict]], params: Params, device: str, resume: Path
) -> dict[str, list[dict]]:
    """Comparisons by split. They are kept in `resume`, where a killed run finds the splits that it has done."""
    from minirlhf.feedback.candidates import collect_comparisons
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy

    policy, tokenizer = load_policy(sft).to(device), load_tokenizer(sft)
    collected, first_episode = {}, 0
    for split in SPLITS:
        chosen = posts[split][: params.collect.posts if split == "train" else HELD_OUT_POSTS]
        kept = resume / f"{split}.jsonl"
        if not kept.exists():
            write_jsonl(kept, collect_comparisons(policy, tokenizer, chosen, params, first_episode))
        collected[split] = read_prepared(kept)
        saved(f"the candidates for {split}")
        first_episode += len(chosen) * params.collect.candidates
    return collected


if __name__ == "__main__":
    run(main)
