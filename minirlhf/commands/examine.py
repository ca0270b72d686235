"""`minirlhf examine`: what any reward models are worth on any comparisons, side by side, without the pipeline."""

import argparse
from collections import Counter
from pathlib import Path

from minirlhf.runtime import stage
from minirlhf.runtime.errors import UserError

RESAMPLES = 1000  # behind each interval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `minirlhf examine` takes."""
    what = "a file (JSON lines, JSON, CSV, parquet), a folder, a data set on the hub, a folder of votes, or embedded"
    parser.add_argument("comparisons", help=what)
    what = "reward models: folders, or names on the hub"
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help=what)
    what = "of a folder or a data set (default: test if there is one, else validation)"
    parser.add_argument("--split", choices=("train", "validation", "test"), help=what)
    parser.add_argument("--revision", help="of a data set on the hub: branch, tag or commit")
    what = "how the models read: concat or pair (default: as each says itself, else pair for an encoder)"
    parser.add_argument("--format", choices=("concat", "pair"), help=what)
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N comparisons")
    what = "columns of the rows by whose values accuracy is told apart"
    parser.add_argument("--slice", nargs="+", default=[], metavar="COLUMN", help=what)
    parser.add_argument("--batch-size", type=int, default=16, help="texts in a pass (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("examine.html"), help="the page (default: %(default)s)")
    what = "the same as one JSON document (default: examine.json)"
    parser.add_argument("--json", type=Path, default=Path("examine.json"), help=what)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, score, compare; print the table, write the page and the document."""
    for name in ("limit", "batch_size", "threads"):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected a number >= 1, got {number}")
    if len(set(args.models)) < len(args.models):
        raise UserError("--models: one of them is named twice")
    if args.output.resolve() == args.json.resolve():
        raise UserError("--output and --json: the same file")
    rows, refused, changed = read(args)
    stage.set_up(0, args.threads, "native")
    from minirlhf.hub.locate import model_place
    from minirlhf.reward_modeling.compare import compare
    from minirlhf.reward_modeling.quality import score_once, summaries_of
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.device import choose_device
    from minirlhf.runtime.files import replace_file, write_json
    from minirlhf.statistics.bootstrap import Bootstrap

    device = choose_device("auto")
    options = {"device": device, "batch_size": args.batch_size} | ({"format": args.format} if args.format else {})
    places = {name: model_place(name) for name in args.models}  # all of them, before the first one scores
    scores = {}
    for name, place in places.items():
        reward = RewardModel.load(place, desc=name, **options)
        scores[name] = score_once(reward, summaries_of(rows))
        del reward  # gives its memory to the next
    document = {"name": args.comparisons, "refused": dict(sorted(refused.items()))}
    document |= {"changed": dict(sorted(changed.items()))} | compare(rows, scores, Bootstrap(0, RESAMPLES), args.slice)
    from minirlhf.report.examined import overview, sentences, write_examined

    write_json(args.json, document)
    with replace_file(args.output) as file:
        file.write(write_examined(document))
    print("\n".join(sentences(document)), overview(document).markdown(), sep="\n\n")
    print(f"\nwritten: {args.output}, {args.json}")


def read(args: argparse.Namespace) -> tuple[list[dict], Counter[str], Counter[str]]:
    """The comparisons, what was refused of them and what was put right in them, by name."""
    if (Path(args.comparisons) / "votes.jsonl").is_file():
        return read_voted(Path(args.comparisons), args.split or "test", args.limit)
    from minirlhf.data.held_out import read_comparisons

    found = read_comparisons(args.comparisons, args.split, args.revision, args.slice, args.limit)
    return found.rows, found.refused, found.changed


def read_voted(folder: Path, split: str, limit: int | None) -> tuple[list[dict], Counter[str], Counter[str]]:
    """Likewise of a folder of people's votes: those that count and decide, with who voted and what stood first."""
    from minirlhf.feedback.votes import read_votes

    votes = read_votes(folder)
    counted = [vote for vote in votes.counted() if votes.pairs[vote.pair].split == split]
    deciding = [vote for vote in counted if vote.choice != "tie"]
    rows = [
        row | {"voter": vote.voter, "first": "chosen" if vote.choice == "left" else "rejected"}
        for row, vote in zip(votes.comparisons(split), deciding, strict=True)
    ]
    if not rows:
        raise UserError(f"{folder}: no vote that decides on a {split} post")
    return rows[:limit], votes.refused + Counter(tie=len(counted) - len(deciding)), Counter()
