"""Run the pipeline for several training seeds, as DVC experiments, and put their results together.

A run counts if it differs from the workspace in nothing but its seed: its dvc.lock is compared with params.yaml and
the stages' code here, stage by stage, the report left out. The workspace itself is one of the runs.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirlhf.commands.dvc import dvc, git, hash_of, parse_lock
from minirlhf.evaluation.seeds import COLUMNS, seed_row
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import parse_json, read_text, write_csv
from minirlhf.settings.params import load_params

SEEDS = {"sft": "seed", "ppo": "ppo_seed"}  # first stage that is run anew -> the param that makes it so
DETAILS = "details/evaluate.json"  # of which git keeps a copy in results/
CODE = ("minirlhf/", "stages/")  # dependencies that are code


@dataclass(frozen=True)
class Run:
    """A whole run of the pipeline with the workspace's settings and code."""

    name: str  # of the experiment, or "workspace"
    seed: int
    ppo_seed: int  # the seed where the params say null
    metrics: dict[str, Any]  # all of evaluate's
    sources: dict[str, str]  # what the data and models were, by their notes' hashes


class Unfit(Exception):
    """Why a run does not count."""


def run_seeds(seeds: Sequence[int], start: str, collect: bool = False, root: Path = Path()) -> list[dict[str, Any]]:
    """Run what is missing, one after the other, and write metrics/seeds.csv.

    Args:
        seeds: the training seeds; none (with `collect`): all that have been run.
        start: "sft" or "ppo", the first stage that is trained anew; those before it are taken from the cache.
        collect: run nothing.

    Returns:
        the rows of metrics/seeds.csv.

    Raises:
        UserError: a run failed (those that ended well stay, and are not run again), or seeds are missing.
    """
    load_params(root / "params.yaml")  # a typo shows before anything runs
    failed = []
    if not collect:
        found, _ = find_runs(start, root)
        failed = [seed for seed in seeds if seed not in found and not _run(seed, start, root)]
    found, unfit = find_runs(start, root)
    for line in unfit:
        print(f"left out: {line}")
    missing = [seed for seed in seeds if seed not in found]
    if missing:
        done = ", ".join(str(seed) for seed in seeds if seed in found) or "none"
        raise UserError(
            f"{SEEDS[start]} {', '.join(map(str, missing))}: {'the run failed, see above' if failed else 'no such run'}"
            f" (there: {done}; they are not run again)"
        )
    chosen = {seed: found[seed] for seed in seeds or sorted(found)}
    if not chosen:
        raise UserError("seeds: no run here has the settings and code of the workspace; try `minirlhf seeds 1 2 3`")
    rows = [seed_row(seed, run.metrics) for seed, run in chosen.items()]
    write_csv(root / "metrics/seeds.csv", rows, list(COLUMNS))
    if "workspace" in {run.name for run in found.values()}:  # its results are there: only the drawing is to be done
        dvc("repro", "--quiet", "--single-item", "report", root=root)
    else:
        print("the workspace holds other results: `dvc repro` draws the seeds into its report")
    return rows


def find_runs(start: str, root: Path) -> tuple[dict[int, Run], list[str]]:
    """The runs by their seed, and why other experiments are none; of two with one seed the newer counts."""
    params = _load(read_text(root / "params.yaml").encode())
    found: dict[int, Run] = {}
    unfit: list[str] = []
    sources = None
    for name, content in _candidates(root):
        try:
            run = _read(name, content, params, start, root)
            sources = sources or run.sources
            if run.sources != sources:
                raise Unfit("the data or a model's source was another")
            found.setdefault(run.seed if start == "sft" else run.ppo_seed, run)
        except Unfit as why:
            unfit.append(f"{name}: {why}")
    return found, unfit


def _run(seed: int, start: str, root: Path) -> bool:
    """Run the pipeline with a seed in a temporary copy; whether it ended well."""
    taken = set(_references(root).values())
    name = f"{SEEDS[start].replace('_', '-')}-{seed}"
    free = next(n for n in (name, *(f"{name}-{again}" for again in range(2, 1000))) if n not in taken)
    print(f"{SEEDS[start]} {seed}: experiment {free}")
    return dvc("exp", "run", "--temp", "--name", free, "--set-param", f"{SEEDS[start]}={seed}", root=root)


def _references(root: Path) -> dict[str, str]:
    """The git references of all experiments, newest first -> their names."""
    listed = git("for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps", root=root).decode()
    # refs/exps/AB/CDEF.../NAME is an experiment; refs/exps/exec/... and the like are DVC's own.
    return {line: line.split("/", 4)[4] for line in listed.splitlines() if len(line.split("/")[2]) == 2}


def _candidates(root: Path) -> Iterator[tuple[str, Any]]:
    """The workspace and every experiment: a name, and a function that reads a file of it."""

    def of_workspace(path: str) -> bytes:
        if not (root / path).is_file():
            raise Unfit(f"it has no {path}")
        return (root / path).read_bytes()

    def of_experiment(reference: str):
        def read(path: str) -> bytes:
            try:
                return git("show", f"{reference}:{path}", root=root)
            except UserError as error:
                raise Unfit(f"it has no {path}") from error

        return read

    yield "workspace", of_workspace
    for reference, name in _references(root).items():
        yield name, of_experiment(reference)


def _read(name: str, content: Any, params: dict, start: str, root: Path) -> Run:
    """The run, if it differs from the workspace's params and code in nothing but its seed."""
    stages = parse_lock(content("dvc.lock"))
    stages.pop("report", None)
    rounds = len(_lookup(params, "feedback.rounds") or ())  # the lock keeps those that have been taken away again
    stages = {key: stage for key, stage in stages.items() if "@" not in key or int(key.partition("@")[2]) < rounds}
    if "evaluate" not in stages:
        raise Unfit("evaluate has not been run")
    made = {path: digest for stage in stages.values() for path, digest in stage["outs"].items()}
    seeds = {"seed": params["seed"], "ppo_seed": params.get("ppo_seed")}
    for stage_name, stage in stages.items():
        for key, value in stage["params"].items():
            _compare(key, value, _lookup(params, key), allowed=SEEDS.values())
        for path, digest in stage["deps"].items():
            if path in made and digest != made[path]:
                raise Unfit(f"{stage_name} was run on another {path} than it holds now")
            if path.startswith(CODE) and digest != hash_of(root / path):
                raise Unfit(f"{path} is not the same here")
    for key in seeds:
        values = {stage["params"][key] for stage in stages.values() if key in stage["params"]}
        if len(values) > 1:
            raise Unfit(f"its stages were run with different {key}s")
        seeds[key] = next(iter(values), None)
    fixed = next(key for key in SEEDS.values() if key != SEEDS[start])
    if seeds[fixed] != params.get(fixed):
        raise Unfit(f"{fixed} is {seeds[fixed]}, here {params.get(fixed)}")
    raw = content(f"results/{DETAILS}")
    if made.get(DETAILS) != hashlib.md5(raw).hexdigest():
        raise Unfit(f"results/{DETAILS} is not what evaluate made")
    ppo_seed = seeds["seed"] if seeds["ppo_seed"] is None else seeds["ppo_seed"]
    metrics = parse_json(raw.decode(), DETAILS)
    return Run(name, seeds["seed"], ppo_seed, metrics, sources=stages["source"]["outs"])


def _load(raw: bytes) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(raw)


def _lookup(params: Any, key: str) -> Any:
    """The setting at a dotted key, None where there is none."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def _compare(key: str, there: Any, here: Any, allowed: Any) -> None:
    """Raise Unfit, naming the first setting that differs, unless it is one of `allowed`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for part in {**here, **there}:
            _compare(f"{key}.{part}", there.get(part), here.get(part), allowed)
    elif there != here and key not in allowed:
        raise Unfit(f"{key} is {there}, here {here}")
