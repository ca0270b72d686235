"""`minirlhf bench`: what this machine can give: correctness first, then PPO at fixed shapes, by phase and against TRL.

Each part is a script of benchmarks/bench in a process of its own, with a deadline: what fails or takes too long becomes
a row that says so, and the rest goes on. Weights are random, so nothing is downloaded.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minirlhf.commands.bench_parts import ROOT, SCRIPTS, Part, Report, Results
from minirlhf.commands.bench_table import TRL_PPO, describe_checks, describe_machine, head, line, row
from minirlhf.commands.bench_work import WORKS, Work
from minirlhf.runtime import stage
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_json

DEFAULTS = {"cpu": ("small", "gpt2"), "cuda": ("124M", "355M")}
SECONDS = {"cpu": 900.0, "cuda": 60.0}  # of a part
MINUTES = {"cpu": 60.0, "cuda": 8.0}  # of all
CHECKED = {"cpu": ("tiny", 8), "cuda": ("124M", 16)}  # work and episodes of the checks


def add_arguments(bench: argparse.ArgumentParser) -> None:
    """The options of `minirlhf bench`."""
    what = "shapes (default: small gpt2; on a GPU 124M 355M)"
    bench.add_argument("--work", nargs="+", choices=WORKS, metavar="NAME", help=f"of {', '.join(WORKS)}: {what}")
    bench.add_argument("--episodes", type=_positive, help="a batch, in the place of the work's own")
    bench.add_argument("--steps", type=_positive, default=2, help="updates timed after one of warm-up (default: 2)")
    what = "times that all trainers run in turn; figures are medians (default: 1)"
    bench.add_argument("--rounds", type=_positive, default=1, help=what)
    bench.add_argument("--threads", type=_positive, default=2, help="of the processor (default: 2)")
    what = "seconds of the processor, not on the clock, where other programs run; with --threads 1, on a CPU"
    bench.add_argument("--processor-time", action="store_true", help=what)
    what = "of an environment with TRL 1.12.0, to run its PPO as well"
    bench.add_argument("--trl-python", metavar="PYTHON", help=what)
    what = "leave out TRL's RLOO and GRPO, which run in this environment"
    bench.add_argument("--no-online", action="store_true", help=what)
    bench.add_argument("--seconds", type=_positive, help="deadline of a part (default: 900; on a GPU 60)")
    bench.add_argument("--minutes", type=_positive, help="deadline of all parts together (default: 60; on a GPU 8)")
    what = "what was found, written after each part (default: bench.json)"
    bench.add_argument("--output", type=Path, default=Path("bench.json"), metavar="FILE", help=what)
    bench.add_argument("--resume", action="store_true", help="keep the parts that are done in the output")
    bench.set_defaults(run=run)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


@dataclass(frozen=True)
class Side:
    """A trainer on the table."""

    trainer: str
    python: str
    script: str
    precision: str
    arguments: tuple[str, ...] = ()
    separate_critic: bool = False


def run(args: argparse.Namespace) -> None:
    """Do what the command line says: print tables, and as the last line all that was found as JSON.

    Raises UserError where there are no scripts to run, or no such Python.
    """
    if not SCRIPTS.is_dir():
        raise UserError(f"bench: no {SCRIPTS.relative_to(ROOT)}: it runs in a checkout of the repository")
    if args.trl_python is not None and shutil.which(args.trl_python) is None:
        raise UserError(f"bench: --trl-python: expected a Python that can be run, not {args.trl_python}")
    if args.processor_time and args.threads > 1:
        raise UserError(
            "bench: --processor-time: expected --threads 1: threads that wait for each other use time as well"
        )
    stage.quiet()  # for the parts: they inherit the environment of the stages
    results = Results(args.output, args.resume)
    machine = know_machine(args, results)
    device = machine["device"]
    if args.processor_time and device != "cpu":
        raise UserError(
            "bench: --processor-time: expected a machine without a GPU, whose time is none of the processor's"
        )
    results.seconds, results.minutes = args.seconds or SECONDS[device], args.minutes or MINUTES[device]
    print(describe_machine(machine) + busy(args), flush=True)
    work, episodes = CHECKED[device]
    shape = ("--work", work, "--episodes", str(episodes), "--precision", precisions(machine)[0])
    checks = results.run(Part("checks", sys.executable, "checks.py", (*where(args, machine), *shape)))
    print(f"\n{describe_checks(checks)}\n", flush=True)
    found = {"rows": list(rows(args, machine, results)), "parts": results.parts}
    write_json(args.output, found)
    print(json.dumps(found))


def know_machine(args: argparse.Namespace, results: Results) -> Report:
    """What the machine is; it is asked again where earlier results are kept, which must be of the same one."""
    machine = results.run(Part("machine", sys.executable, "arithmetic.py", clock(args)), again=True)
    if "device" not in machine:
        raise UserError(f"bench: PyTorch tells nothing of this machine: {machine['ended']}")
    earlier = next((found for found in results.before if found.get("part") == "machine"), machine)
    for name in ("device", "name", "arithmetic", "torch", "threads"):
        if earlier.get(name) != machine[name]:
            told = f"its results are of {name} {earlier.get(name)}, not {machine[name]}"
            raise UserError(f"bench: --resume: {args.output}: {told}")
    return machine


def clock(args: argparse.Namespace) -> tuple[str, ...]:
    """What every script is told of threads and time."""
    return ("--threads", str(args.threads), *(["--processor-time"] if args.processor_time else []))


def where(args: argparse.Namespace, machine: Report) -> tuple[str, ...]:
    """What every trainer is told of the machine."""
    return (*clock(args), "--device", machine["device"])


def precisions(machine: Report) -> list[str]:
    """What ours is measured in; the first one is all others' as well."""
    known = machine["precisions"]
    return known[-1:] if machine["device"] == "cuda" else known


def busy(args: argparse.Namespace) -> str:
    """What a reader must know of the clock, in lines."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    lines = ["Seconds are the processor's, not the clock's."] if args.processor_time else []
    if load > args.threads:
        lines.append(f"The load is {load:.1f} on {cores} cores: figures are those of a busy machine.")
    return "".join(f"\n{line}" for line in lines)


def sides(args: argparse.Namespace, machine: Report) -> list[Side]:
    """The trainers that run on this machine, in turn."""
    first, *others = precisions(machine)
    ours = Side("MiniRLHF PPO", sys.executable, "ours.py", first)
    found = [ours]
    if args.trl_python:
        found.insert(0, Side(TRL_PPO, args.trl_python, "trl_ppo.py", first, separate_critic=True))
    if machine["device"] == "cpu":
        apart = replace(ours, trainer="MiniRLHF PPO, separate critic", arguments=("--critic", "separate"))
        found.append(replace(apart, separate_critic=True))
    found += [replace(ours, precision=precision) for precision in others]
    if not args.no_online:
        for kind in ("rloo", "grpo"):
            found.append(Side(f"TRL {kind.upper()}", sys.executable, "trl_online.py", first, ("--algorithm", kind)))
    return found


def rows(args: argparse.Namespace, machine: Report, results: Results) -> Iterator[dict[str, Any]]:
    """Run every trainer on every work; print the row of each after its last round, and yield it."""
    names, trainers = args.work or DEFAULTS[machine["device"]], sides(args, machine)
    works = {name: WORKS[name].of(args.episodes) for name in names}
    print("\n".join(f"{name}: {work.description()}" for name, work in works.items()) + f"\n\n{head()}", flush=True)
    total, number = args.rounds * len(works) * len(trainers), 0
    for name, work in works.items():
        reports: dict[Side, list[Report]] = {side: [] for side in trainers}
        for turn in range(args.rounds):
            for side in trainers:
                number += 1
                part = part_of(name, work, side, turn, args, machine)
                reports[side].append(results.run(part, f"{number} of {total}: "))
                if turn == args.rounds - 1:
                    theirs = next((found for each, found in reports.items() if each.trainer == TRL_PPO), [])
                    found = row(work, reports[side], theirs, machine)
                    print(line(found), flush=True)
                    yield found


def part_of(name: str, work: Work, side: Side, turn: int, args: argparse.Namespace, machine: Report) -> Part:
    """One trainer on one work, once."""
    shape = ("--work", name, "--episodes", str(work.episodes), "--steps", str(args.steps + 1))
    labels = {"work": name, "trainer": side.trainer, "precision": side.precision, "round": turn + 1}
    labels["separate_critic"] = side.separate_critic
    arguments = (*where(args, machine), *shape, "--precision", side.precision, *side.arguments)
    called = f"{name}, {side.trainer}, {side.precision}, round {turn + 1}"
    return Part(called, side.python, side.script, arguments, labels)
