"""Prepare posts and comparisons: read the sources, refuse bad rows, cut posts to length, write the splits.

In:  the notes of stages/source.py, the sources that they name, the base model's tokenizer.
Out: data/prepared/{posts,comparisons}/{train,validation,test}.jsonl,
     details/prepare.json (rows kept and refused by reason, lengths), details/lengths.csv (their histograms).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.files import read_object, write_csv, write_json, write_jsonl
from minirlhf.runtime.stage import quiet, run
from minirlhf.settings.params import load_params


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--sources", type=Path, default=Path("data/sources"), help="folder of the notes")
    parser.add_argument("--output", type=Path, default=Path("data/prepared"))
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder for what was counted")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    notes = {name: read_object(args.sources / f"{name}.json") for name in ("posts", "comparisons", "base")}

    quiet()
    from minirlhf.data.files import SPLITS
    from minirlhf.data.prepare import describe, length_histogram, prepare, summarize
    from minirlhf.data.sources import Source
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.hub.locate import model_place
    from minirlhf.models.checks import check_run

    check_run(params, args.sources)  # it changes nothing that is written, so DVC need not know what it reads
    given = ("posts", "comparisons") if params.data.comparisons else ("posts",)
    sources = [Source(what, params.data, notes[what]) for what in given]
    tokenizer = load_tokenizer(model_place(params.model.base), notes["base"].get("commit"))
    for source in sources:
        for path in source.unread:
            print(f"{source.what}: {source.name}: not read: {path}")
    tallies = prepare(sources, params.data, tokenizer, args.output)
    if params.data.comparisons is None:
        for split in SPLITS:
            write_jsonl(args.output / "comparisons" / f"{split}.jsonl", [])
    for what, splits in tallies.items():
        for split, tally in splits.items():
            changed = f"; put right: {describe(tally.changed)}" if tally.changed else ""
            print(
                f"{what}/{split}: {tally.kept} kept, {tally.truncated} of them cut; refused: "
                f"{describe(tally.refused)}{changed}"
            )
    write_json(args.details / "prepare.json", summarize(tallies))
    write_csv(args.details / "lengths.csv", length_histogram(tallies))


if __name__ == "__main__":
    run(main)
