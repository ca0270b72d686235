"""The `minirlhf` command, also `python -m minirlhf`."""

import argparse
from collections.abc import Sequence

from minirlhf import profiles, stage


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

    args = parser.parse_args(argv)
    args.run(args)


def _profile(args: argparse.Namespace) -> None:
    if args.name is None:
        print("\n".join(profiles.profile_names()))
    else:
        profiles.use_profile(args.name)
        print(f"params.yaml is now profiles/{args.name}.yaml")
