"""The `minirlhf` command, also `python -m minirlhf`."""

import argparse
from collections.abc import Sequence

from minirlhf import profiles, stage
from minirlhf.params import load_params


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
    stage.set_up(params)
    from minirlhf.plan import show

    print(show(params, None if args.gpu is None else int(args.gpu * 1e9), timing=not args.no_timing))
