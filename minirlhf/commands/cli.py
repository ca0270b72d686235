"""The `minirlhf` command, also `python -m minirlhf`. Nothing heavy is imported before a command needs it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from minirlhf.commands import bench, examine, label, profiles
from minirlhf.runtime import stage
from minirlhf.runtime.errors import UserError
from minirlhf.settings.params import load_params


def main() -> None:
    """What the installed command calls: errors in one line."""
    stage.run(command)


def command(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="minirlhf", description="Helpers beside the DVC pipeline.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    profile = commands.add_parser("profile", help="put profiles/NAME.yaml in the place of params.yaml")
    profile.add_argument("name", nargs="?", help="the profile; without it, their names are printed")
    profile.set_defaults(run=_profile)

    plan = commands.add_parser("plan", help="what the run of params.yaml will take in memory and time, and if it fits")
    plan.add_argument("--params", default="params.yaml")
    plan.add_argument("--no-timing", action="store_true", help="leave the time out, which takes half a minute to find")
    plan.add_argument("--gpu", type=float, metavar="GB", help="plan for a GPU of so much memory that is not here")
    plan.set_defaults(run=_plan)
    summarize = commands.add_parser("summarize", help="summarize your own posts with the models, side by side")
    summarize.add_argument("post", nargs="?", help="the post itself; without it and --posts, standard input")
    what = "a file (.txt: one post; .jsonl: a post a line in `prompt`), or a folder of such"
    summarize.add_argument("--posts", type=Path, metavar="PATH", help=what)
    summarize.add_argument("--title", default="", help="of a raw post")
    summarize.add_argument("--subreddit", default="AskReddit", help="of a raw post (default: %(default)s)")
    what = "checkpoints to compare (default: models/sft models/ppo)"
    summarize.add_argument("--models", nargs="+", default=["models/sft", "models/ppo"], metavar="FOLDER", help=what)
    what = "the reward model; none: no rewards (default: models/reward, if it is there)"
    summarize.add_argument("--reward", metavar="FOLDER", help=what)
    what = "0 is greedy (default: what suits each policy best, as evaluate found)"
    summarize.add_argument("--temperature", type=float, help=what)
    summarize.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    summarize.add_argument("--max-new-tokens", type=int, help="EOS included (default: ppo.max_new_tokens, or 53)")
    summarize.add_argument("--jsonl", action="store_true", help="print JSON lines")
    summarize.set_defaults(run=_summarize)

    seeds = commands.add_parser("seeds", help="run the pipeline for several training seeds, with intervals over them")
    seeds.add_argument("seeds", nargs="*", type=int, metavar="SEED", help="training seeds; the world's stays")
    what = "the first stage to train anew with each seed (default: sft)"
    seeds.add_argument("--from", choices=("sft", "ppo"), default="sft", dest="start", help=what)
    seeds.add_argument("--collect", action="store_true", help="run nothing; without seeds, take all that were run")
    seeds.set_defaults(run=_seeds)

    label.add_arguments(commands.add_parser("label", help="compare summaries on a page, as people do"))

    examine.add_arguments(commands.add_parser("examine", help="say what reward models are worth on comparisons"))

    watch = commands.add_parser("watch", help="print the last rows of the curves that were written last")
    watch.set_defaults(run=_watch)

    follow = commands.add_parser(
        "follow", help="print a page that follows one prompt to PPO's gradient, with its values"
    )
    follow.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    follow.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    follow.add_argument("--reward", type=Path, default=Path("models/reward"), help="folder of the reward model")
    follow.add_argument("--updates", type=int, default=3, help="of PPO made before it (default: %(default)s)")
    follow.set_defaults(run=_follow)

    push = commands.add_parser("push", help="send a model with its card to a repository of the hub, a private one")
    push.add_argument("folder", type=Path, help="of the policy or reward model, as models/ppo")
    push.add_argument("name", help="the repository, as user/my-summarizer; made if it is not there")
    push.add_argument("--public", action="store_true", help="for all to see")
    push.set_defaults(run=_push)

    export = commands.add_parser("export", help="copy a policy, set to sample at the temperature that suits it best")
    export.add_argument("folder", type=Path, help="of the policy: models/ppo, or models/sft")
    export.add_argument("target", type=Path, help="the new folder")
    export.set_defaults(run=_export)

    reproduce = commands.add_parser("reproduce", help="run everything from scratch in a clone, and compare")
    reproduce.add_argument("--record", action="store_true", help="note this machine as the one that makes these bytes")
    reproduce.set_defaults(run=_reproduce)

    bench.add_arguments(commands.add_parser("bench", help="measure this machine: right, how fast, against TRL"))

    args = parser.parse_args(argv)
    args.run(args)


def _profile(args: argparse.Namespace) -> None:
    if args.name is None:
        print("\n".join(profiles.profile_names()))
    else:
        profiles.use_profile(args.name)
        print(f"params.yaml is now profiles/{args.name}.yaml")


def _plan(args: argparse.Namespace) -> None:
    params = load_params(args.params)
    stage.set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.commands.plan import show

    print(show(params, None if args.gpu is None else int(args.gpu * 1e9), timing=not args.no_timing))


def _summarize(args: argparse.Namespace) -> None:
    from minirlhf.commands.summarize import Decoding, default_decoding, read_posts, side_by_side, summarize, to_prompt

    if args.post is not None and args.posts is not None:
        raise UserError("summarize: either a post or --posts, not both")
    if args.posts is not None:
        posts = read_posts(args.posts)
    else:
        posts = [("post", sys.stdin.read() if args.post is None else args.post, False)]
    prompts = [to_prompt(text, args.title, args.subreddit, where, whole) for where, text, whole in posts]
    reward = args.reward or ("models/reward" if Path("models/reward").is_dir() else None)
    options = default_decoding() | {"temperature": args.temperature, "seed": args.seed}
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    rows = summarize(prompts, args.models, None if reward == "none" else reward, Decoding(**options))
    for (where, *_), row in zip(posts, rows, strict=True):
        if args.jsonl:
            print(json.dumps({"source": where, **row}, ensure_ascii=False))
        else:
            print(side_by_side(row), end="\n\n")


def _seeds(args: argparse.Namespace) -> None:
    from minirlhf.commands.seeds import run_seeds

    if not (args.seeds or args.collect):
        raise UserError("seeds: expected training seeds, as in `minirlhf seeds 1 2 3`, or --collect")
    rows = run_seeds(list(dict.fromkeys(args.seeds)), args.start, args.collect)
    from minirlhf.report.tables import seeds_table

    print(seeds_table(rows).markdown())
    print(f"\nmean (95% t interval over {len(rows)} seeds); written: metrics/seeds.csv")


def _watch(args: argparse.Namespace) -> None:
    from minirlhf.commands.watch import watch

    watch()


def _export(args: argparse.Namespace) -> None:
    from minirlhf.commands.export import export
    from minirlhf.commands.summarize import Decoding, default_decoding

    temperature = export(args.folder, args.target, Decoding(**default_decoding()).max_new_tokens)
    print(f"{args.target}: {args.folder}, at temperature {temperature:g} ({'sampled' if temperature else 'greedy'})")


def _follow(args: argparse.Namespace) -> None:
    params = load_params()
    stage.set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.commands.follow import follow

    print(follow(params, args.posts, args.sft, args.reward, args.updates), end="")


def _push(args: argparse.Namespace) -> None:
    stage.quiet()
    from minirlhf.commands.push import push

    print(push(args.folder, args.name, args.public))


def _reproduce(args: argparse.Namespace) -> None:
    from minirlhf.commands.reproduce import reproduce

    reproduce(record=args.record)
