"""Prepare posts and comparisons: read the sources, refuse bad rows, cut posts to length, write the splits.

In:  the notes of stages/source.py, the sources that they name, the base model's tokenizer.
Out: data/prepared/{posts,comparisons}/{train,validation,test}.jsonl,
     metrics/prepare.json (rows kept and refused by reason, lengths), plots/lengths.csv (their histograms).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object, write_csv, write_json, write_jsonl
from minirlhf.runtime.stage import quiet, run
from minirlhf.settings.params import Params, load_params


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the notes")
    parser.add_argument("--output", type=Path, default=Path("data/prepared"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/prepare.json"))
    parser.add_argument("--lengths", type=Path, default=Path("plots/lengths.csv"), help="histograms of lengths")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    notes = {name: read_object(args.sources / f"{name}.json") for name in ("posts", "comparisons", "base")}

    quiet()
    from minirlhf.data.prepare import describe, length_histogram, prepare, summarize
    from minirlhf.data.rows import SPLITS
    from minirlhf.data.sources import Source
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.hub.locate import model_place

    check_positions(params, notes["base"].get("commit"))
    given = ("posts", "comparisons") if params.data.comparisons else ("posts",)
    sources = [Source(what, params.data, notes[what]) for what in given]
    tokenizer = load_tokenizer(model_place(params.model.base), notes["base"].get("commit"))
    tallies = prepare(sources, params.data, tokenizer, args.output)
    if params.data.comparisons is None:
        for split in SPLITS:
            write_jsonl(args.output / "comparisons" / f"{split}.jsonl", [])
    for what, splits in tallies.items():
        for split, tally in splits.items():
            print(f"{what}/{split}: {tally.kept} kept, {tally.truncated} of them cut; refused: {describe(tally)}")
    write_json(args.metrics, summarize(tallies))
    write_csv(args.lengths, length_histogram(tallies))


def check_positions(params: Params, commit: str | None) -> None:
    """Raise UserError where the base model has no positions for the longest prompt and response, PPO's included.

    Said here, before anything is trained. It changes nothing that is written, so DVC need not know these settings.
    """
    from minirlhf.hub.configs import load_config
    from minirlhf.hub.locate import model_place

    config = load_config(model_place(params.model.base), commit, params.model.random_weights)
    positions = getattr(config, "max_position_embeddings", None)
    prompt = params.data.max_prompt_tokens
    responses = {
        "data.max_response_tokens": params.data.max_response_tokens,
        "ppo.max_new_tokens": params.ppo.max_new_tokens,
    }
    for name, response in responses.items():
        if positions is not None and prompt + response > positions:
            raise UserError(
                f"data.max_prompt_tokens ({prompt}) and {name} ({response}) together exceed the {positions} positions "
                f"of {params.model.base}"
            )


if __name__ == "__main__":
    run(main)
