"""What a round of feedback buys: no round, one, and the control, which has as many comparisons, all of SFT's samples.

    dvc repro prepare
    OMP_NUM_THREADS=1 python benchmarks/rounds.py --seeds 1 3 5 --threads 1 &
    OMP_NUM_THREADS=1 python benchmarks/rounds.py --seeds 2 4 --threads 1
    python benchmarks/rounds.py --table

Each seed trains SFT and collects once; for either reward, the seeing one (reward.likelihood: true) and the blind one,
it then aligns and evaluates:

    none        by the comparisons of SFT's samples, as the pipeline does
    round       also by comparisons of what `none` writes, of the next posts: feedback.rounds with one entry
    control     also by comparisons of what SFT writes, of the same next posts
    control-2x  the same with twice the episodes, as many as `none` and `round` took together

All begin anew from SFT, with the settings of params.yaml. A row of benchmarks/rounds.csv is written when a run ends
(and committed alone, with --commit). Killed, the same command goes on: what a step has made stays in the work folder.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import append, rows_of
from minirlhf.runtime.files import read_csv, read_json, write_json
from minirlhf.settings.params import load_params
from minirlhf.statistics.intervals import mean_interval

STAGES = Path(__file__).resolve().parents[1] / "stages"
ARMS = ("none", "round", "control", "control-2x")
PROBES = ("wrong", "misread", "missing", "filler", "repeated", "ungrammatical", "cut")
FIGURES = ("gold", "best", "proxy", "kl", *PROBES)
COLUMNS = ("seed", "likelihood", "arm", "comparisons", "episodes", "sft", "sft_best", "gold", "gold_low", "gold_high",
           "best", "best_temperature", "proxy", "kl", "accuracy", *PROBES, "minutes")  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--threads", type=int, help="(default: that of the params)")
    parser.add_argument("--work", type=Path, default=Path("models/own/rounds"), help="folder for what the steps make")
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/rounds.csv"))
    parser.add_argument("--commit", action="store_true", help="commit each row")
    parser.add_argument("--table", action="store_true", help="run nothing: print means over the seeds in the CSV file")
    args = parser.parse_args(argv)
    if not args.table:
        for seed in args.seeds:
            run_seed(seed, args)
    print(table(read_csv(args.csv)))


def run_seed(seed: int, args: argparse.Namespace) -> None:
    """All that is missing of a seed."""
    work = args.work / f"seed-{seed}"
    settings = load_params(args.params).model_dump(mode="json")
    settings |= {"seed": seed, "ppo_seed": None, "threads": args.threads or settings["threads"]}
    settings["feedback"]["rounds"] = []
    settings["ppo"] |= {"snapshot_every": 0}
    settings["evaluate"] |= {"best_of_n": 1, "frontier_posts": 1}
    sft, collected, doubled = work / "sft", work / "collected", work / "collected-2x"
    step = stepper(work, settings)
    step("sft", sft, metrics=work / "sft.json", details=work / "sft-details")
    step("collect", collected, policy=sft)
    for likelihood in (True, False):
        inner = work / ("seeing" if likelihood else "blind")
        settings["reward"]["likelihood"] = likelihood
        step = stepper(inner, settings)
        mine = str(seed), str(int(likelihood))
        done = {row["arm"] for row in rows_of(args.csv) if (row["seed"], row["likelihood"]) == mine}
        for arm in args.arms:
            if arm in done:
                continue
            begun = time.monotonic()
            if arm == "round" and not (inner / "none/ppo").exists():
                raise SystemExit("round needs what none left: leave none among --arms")
            at, folder = inner / arm, {"none": collected, "round": inner / "collected"}.get(arm, doubled)
            if arm != "none":
                policy = inner / "none/ppo" if arm == "round" else sft
                step("collect", folder, policy=policy, round=0, before=collected)
            learnt = inner / "control/reward" if arm == "control-2x" else at / "reward"
            examined = learnt.parent / "reward-details"
            step("reward", learnt, sft=sft, collected=folder, metrics=examined / "metrics.json", details=examined)
            episodes = settings["ppo"]["episodes"] * (2 if arm == "control-2x" else 1)
            longer = settings | {"ppo": settings["ppo"] | {"episodes": episodes}}
            stepper(at, longer)("ppo", at / "ppo", sft=sft, reward=learnt, collected=folder, details=at / "details")
            read = {"sft": sft, "ppo": at / "ppo", "reward": learnt, "rounds": at / "no-rounds"}
            step("evaluate", None, **read, metrics=at / "metrics.json", details=at / "details")
            with open(folder / "train.jsonl") as rows:
                first = {"seed": seed, "likelihood": int(likelihood), "arm": arm, "comparisons": sum(1 for _ in rows)}
            row = first | {"episodes": episodes} | figures(at / "details", examined)
            append(args.csv, COLUMNS, [row | {"minutes": (time.monotonic() - begun) / 60}])
            if args.commit:
                subprocess.run(["git", "add", args.csv], check=True)
                name = f"{arm}, seed {seed}, likelihood {str(likelihood).lower()}"
                subprocess.run(["git", "commit", "-qm", f"Record a run of rounds: {name}", "--", args.csv], check=True)


def stepper(work: Path, settings: dict) -> Callable:
    """A function that runs a stage's script with these settings, unless its output is there."""
    work.mkdir(parents=True, exist_ok=True)
    params = work / "params.yaml"
    write_json(params, settings)
    environment = os.environ | {"DVC_ROOT": str(work.resolve())}  # where a killed stage leaves its state

    def step(stage: str, output: Path | None, **options) -> None:
        if output is None or not output.exists():
            told = options if output is None else options | {"output": output}
            words = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
            command = [sys.executable, STAGES / f"{stage}.py", "--params", params, *words]
            if subprocess.run(command, env=environment).returncode:
                raise SystemExit(f"{stage} failed: run the same command again")

    return step


def figures(details: Path, examined: Path) -> dict:
    """What evaluate and the reward model's examination found."""
    found, reward = read_json(details / "evaluate.json"), read_json(examined / "reward.json")
    gold, best = found["intervals"]["ppo"]["gold"], found["best"]
    row = {"sft": found["sft"]["gold"], "sft_best": best["sft"]["gold"], "gold": gold["value"]}
    row |= {"gold_low": gold["low"], "gold_high": gold["high"], "best": best["ppo"]["gold"]}
    row |= {"best_temperature": best["ppo"]["temperature"], "proxy": found["ppo"]["reward"], "kl": found["kl"]}
    probes = {probe["probe"]: probe["value"] for probe in read_csv(examined / "reward_probes.csv")}
    return row | {"accuracy": reward["reward_accuracy"]} | {name: probes[name] for name in PROBES}


def table(rows: list[dict]) -> str:
    """Means over seeds, and what each arm has more than `control`, paired by seed, with 95% t intervals."""
    lines = ["| reward | arm | seeds | " + " | ".join(FIGURES) + " | gold minus control | best minus control |"]
    lines += ["| --- | --- |" + " ---: |" * (len(FIGURES) + 3)]
    by = {(row["likelihood"], row["arm"], row["seed"]): row for row in rows}
    for likelihood in (1, 0):
        for arm in ARMS:
            found = [row for row in rows if (row["likelihood"], row["arm"]) == (likelihood, arm)]
            if not found:
                continue
            cells = [f"{sum(row[name] for row in found) / len(found):.2f}" for name in FIGURES]
            for name in ("gold", "best"):
                pairs = [(row, by.get((likelihood, "control", row["seed"]))) for row in found]
                gains = [row[name] - control[name] for row, control in pairs if control is not None]
                shown = mean_interval(gains) if len(gains) > 1 and arm != "control" else None
                cells.append(f"{shown['value']:+.2f} ({shown['low']:+.2f} to {shown['high']:+.2f})" if shown else "")
            seen = "seeing" if likelihood else "blind"
            lines.append(f"| {seen} | {arm} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
