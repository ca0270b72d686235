"""`minirlhf label`: people compare summaries, on a page; and what they said, counted, imported and exported."""

import argparse
import os
import sys
import webbrowser
from collections import Counter
from pathlib import Path

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import replace_file, write_jsonl
from minirlhf.settings.params import load_params

FOLDER = Path("data/votes")
PORT = 8017
RULES = ("random", "closest", "disagreement")


def add_arguments(label: argparse.ArgumentParser) -> None:
    """The options of `minirlhf label`."""
    what = "candidates: what collect sampled, to train the reward model; results: before and after, to judge"
    label.add_argument(
        "what", nargs="?", choices=("candidates", "results"), default="candidates", help=f"{what} (default: candidates)"
    )
    label.add_argument("--host", default="127.0.0.1", help="to listen on; not this machine alone: with a token")
    label.add_argument("--port", type=int, help=f"default: {PORT}, or any where that is taken")
    label.add_argument("--rule", choices=RULES, default="random", help="which candidates come first (default: random)")
    what = "for --rule: one reward model for closest, several for disagreement (default: models/reward)"
    label.add_argument("--reward", nargs="+", type=Path, default=[Path("models/reward")], metavar="FOLDER", help=what)
    what = "pairs whose answer is known, asked in between to see who attends: comparisons, in any format of --import"
    label.add_argument("--known", type=Path, metavar="FILE", help=f"{what} (default: the embedded world's)")
    label.add_argument("--no-open", action="store_true", help="do not open a browser")
    instead = label.add_mutually_exclusive_group()
    instead.add_argument("--packet", type=Path, metavar="FILE", help="write the page as one HTML file to send")
    instead.add_argument("--import", type=Path, nargs="+", dest="files", metavar="FILE", help="take votes from files")
    what = "write the votes that decide as JSON lines: to TRL's columns, or with --format openai"
    instead.add_argument("--export", type=Path, metavar="FILE", help=what)
    instead.add_argument("--status", action="store_true", help="what is known so far")
    label.add_argument("--format", choices=("trl", "openai"), default="trl", help="of --export (default: trl)")
    label.add_argument(
        "--voter", default="anybody", help="whom a packet is for: its order and sides are drawn for them"
    )
    label.add_argument("--votes", type=int, default=50, help="pairs in a packet (default: 50)")
    label.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    from minirlhf.feedback.votes import read_votes

    folder = FOLDER / args.what
    if args.files:
        _import(args.files, folder)
    elif args.export:
        from minirlhf.feedback.exchange import EXPORTS

        count = write_jsonl(args.export, EXPORTS[args.format](read_votes(folder)))
        print(f"{args.export}: {count} comparisons; ties and skips are none")
    elif args.status:
        from minirlhf.labelling.status import status
        from minirlhf.statistics.bootstrap import Bootstrap

        print("\n".join(status(read_votes(folder), Bootstrap())))
    elif args.packet:
        _packet(args, folder)
    else:
        _serve(args, folder)


def _serve(args: argparse.Namespace, folder: Path) -> None:
    from minirlhf.labelling.choose import queue_of
    from minirlhf.labelling.server import LabelServer
    from minirlhf.labelling.session import Session

    wanted = load_params().collect.votes if args.what == "candidates" else 0
    session = Session(folder, queue_of(args.what, args.rule, args.reward, args.known), wanted)
    try:
        server = LabelServer(session, args.host, PORT if args.port is None else args.port)
    except UserError:
        if args.port is not None:
            raise
        server = LabelServer(session, args.host)
    print(f"{server.address}\nVotes go to {folder}; Ctrl-C ends this, and nothing is lost.", flush=True)
    if not args.no_open and (sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        webbrowser.open(server.address)
    server.serve_forever()


def _packet(args: argparse.Namespace, folder: Path) -> None:
    from minirlhf.feedback.votes import keep, read_votes
    from minirlhf.labelling.choose import queue_of
    from minirlhf.labelling.packet import packet
    from minirlhf.labelling.session import sequence

    asks = sequence(queue_of(args.what, args.rule, args.reward, args.known), args.voter, args.votes)
    keep(folder, read_votes(folder), [ask.pair for ask in asks])
    with replace_file(args.packet) as file:
        file.write(packet(asks))
    back = f"minirlhf label {args.what} --import FILE"
    print(f"{args.packet}: {len(asks)} pairs. The file of votes that it gives back: {back}")


def _import(files: list[Path], folder: Path) -> None:
    from minirlhf.feedback.exchange import read_given
    from minirlhf.feedback.votes import add, read_votes

    votes = read_votes(folder)
    before = len(votes.cast)
    for path in files:
        refused: Counter[str] = Counter()
        found = list(read_given(path, refused))
        pairs = {pair.id: pair for pair, _ in found if pair is not None}
        refused += add(folder, votes, [record for _, record in found], pairs)
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "none"
        print(f"{path}: {len(votes.cast) - before} votes taken; refused: {left_out}")
        before = len(votes.cast)
