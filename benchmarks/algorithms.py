"""PPO, RLOO, GRPO and DPO on the same SFT and reward models, several seeds: what each reaches, and what it costs.

    dvc repro reward
    python benchmarks/algorithms.py --seeds 1 2 3 --markdown benchmarks/algorithms.md

Reads params.yaml and what the pipeline made up to the reward model; runs the stages ppo and evaluate by hand, each time
in a folder of its own, and changes nothing in the repository but the table. All runs begin from the same SFT model: the
seed is that of alignment and of evaluation. Seconds are those of the stage ppo, imports included.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.runtime.files import read_json, write_json
from minirlhf.settings.params import load_params

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = ("ppo", "rloo", "grpo", "dpo")
COLUMNS = {
    "gold": "gold score",
    "reward": "training reward",
    "kl": "KL, nats a response",
    "win_rate": "beats SFT",
    "length": "tokens",
    "seconds": "seconds",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--episodes", type=int, help="shorter runs than params.yaml says")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    args = parser.parse_args()
    params = load_params(ROOT / "params.yaml").model_dump(mode="json")
    for algorithm in ALGORITHMS if args.episodes else ():
        params[algorithm]["episodes"] = args.episodes
    params["evaluate"] |= {"best_of_n": 1}  # of the SFT model: the same for all

    lines = ["| algorithm | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    print("\n".join(lines), flush=True)
    for algorithm in args.algorithms:
        found = [run(params | {"algorithm": algorithm, "seed": seed}) for seed in args.seeds]
        cells = [cell([row[column] for row in found]) for column in COLUMNS]
        lines.append(f"| {algorithm.upper()} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    seeds = f"{len(args.seeds)} seeds" if len(args.seeds) > 1 else "1 seed"
    lines += ["", f"Means of {seeds}, ± the standard deviation between them."]
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(params: dict) -> dict[str, float | None]:
    """Align and evaluate with these params; the figures of COLUMNS. Outside the embedded world gold is None."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("data", "models"):
            (folder / name).mkdir()
        for name in ("data/prepared", "data/collected", "models/sft", "models/reward"):
            (folder / name).symlink_to(ROOT / name)
        write_json(folder / "params.yaml", params)  # JSON is YAML
        started = time.perf_counter()
        stage("ppo", folder)
        seconds = time.perf_counter() - started
        stage("evaluate", folder)
        found = read_json(folder / "details/evaluate.json")
    figures = {name: found["ppo"].get(name) for name in ("gold", "reward", "length")}
    return figures | {"kl": found["kl"], "win_rate": found["win_rate"]["ppo_vs_sft"]["value"], "seconds": seconds}


def stage(name: str, folder: Path) -> None:
    """Run a stage's script in a folder, its progress on stderr."""
    environment = {**os.environ, "DVC_ROOT": str(ROOT)}  # where names of folders in the params begin
    subprocess.run([sys.executable, ROOT / "stages" / f"{name}.py"], cwd=folder, env=environment, check=True)


def cell(values: list[float | None]) -> str:
    """The mean of the seeds, and how far they spread."""
    if None in values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


if __name__ == "__main__":
    main()
