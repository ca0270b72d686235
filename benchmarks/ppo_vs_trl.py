"""MiniRLHF's PPO against TRL 1.12.0's PPOTrainer on the same work: episodes/s and peak memory.

    python -m venv /tmp/trl
    /tmp/trl/bin/pip install torch==2.13.0 trl==1.12.0 transformers==5.23.0
    python benchmarks/ppo_vs_trl.py --trl-python /tmp/trl/bin/python --work small gpt2 --markdown benchmarks/ppo.md

Each side runs in a process of its own, in turn, with as many threads as asked for, on a quiet machine. Episodes/s is
the batch divided by the median step after the first (warm-up); "times TRL" is the median over the rounds of the ratio
within a round; memory is the peak resident set of the process, everything included. The floor is the time that the
multiply-adds of the recipe take at the speed at which this machine multiplies large matrices, measured at the start.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
TRL = "TRL 1.12.0"
COLUMNS = ("work", "trainer", "episodes/s", "times TRL", "peak GB", "of TRL's", "floor", "of the floor")


def matrix_speed(threads: int) -> float:
    """Multiply-adds (counted twice) a second of a large fp32 matrix product: the best of ten, of MKL's and oneDNN's."""
    import torch

    from minirlhf.models.products import linear

    torch.set_num_threads(threads)
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for function in (torch.nn.functional.linear, linear):
        for _ in range(10):
            start = time.perf_counter()
            function(left, right, None)
            best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def run(python: str, worker: str, *arguments: str) -> dict:
    """The report of one worker, run to its end."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [python, str(HERE / worker), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{worker} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, args: argparse.Namespace, speed: float) -> list[dict]:
    """Rows of the table for one work: TRL, shared trunk, separate critic, in turn, `args.rounds` times."""
    from ppo_work import WORKS

    work = WORKS[name]
    common = ["--work", name, "--steps", str(args.steps + 1), "--threads", str(args.threads)]
    sides = {
        "value head on the trunk": (sys.executable, "ppo_worker_ours.py", "--critic", "shared"),
        "separate critic": (sys.executable, "ppo_worker_ours.py", "--critic", "separate"),
    }
    if args.trl_python:
        sides = {TRL: (args.trl_python, "ppo_worker_trl.py")} | sides
    reports = {label: [] for label in sides}
    for _ in range(args.rounds):
        for label, (python, worker, *extra) in sides.items():
            reports[label].append(run(python, worker, *common, *extra))
    rates = {
        label: [work.episodes / statistics.median(each["seconds"][1:]) for each in of] for label, of in reports.items()
    }
    memory = {label: statistics.median(each["peak_gb"] for each in of) for label, of in reports.items()}
    rows = []
    for label, of in reports.items():
        row = {"work": name, "trainer": label, "episodes/s": statistics.median(rates[label]), "peak GB": memory[label]}
        if args.trl_python:
            ratios = [ours / theirs for ours, theirs in zip(rates[label], rates[TRL], strict=True)]
            row |= {"times TRL": statistics.median(ratios), "of TRL's": memory[label] / memory[TRL]}
        # TRL's critic is separate.
        floor = speed / work.flops_per_episode(separate_critic=label != "value head on the trunk")
        row |= {"floor": floor, "of the floor": row["episodes/s"] / floor}
        rows.append(row | {"seconds": [each["seconds"] for each in of], "versions": of[0]["versions"]})
        print(line(row), flush=True)
    return rows


def line(row: dict) -> str:
    """A row of the table, in Markdown."""
    cells = [f"{row[key]:.3g}" if isinstance(row.get(key), float) else str(row.get(key, "-")) for key in COLUMNS]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=["small", "gpt2"], choices=["small", "gpt2", "tiny"])
    parser.add_argument("--trl-python", help="the python of an environment with TRL 1.12.0; without it only ours runs")
    parser.add_argument("--steps", type=int, default=5, help="steps timed after one of warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="times that the sides run in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--json", type=Path, help="write every step's seconds to this file")
    args = parser.parse_args()
    speed = matrix_speed(args.threads)
    header = [
        f"{args.threads} threads of {processor()}, {speed / 1e9:.0f} GFLOP/s in fp32 matrix products, "
        f"Python {platform.python_version()}; {args.rounds} rounds in turn of {args.steps} steps "
        "after one of warm-up",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    print("\n".join(header), flush=True)
    rows = [row for name in args.work for row in compare(name, args, speed)]
    versions = sorted({f"{key} {value}" for row in rows for key, value in row["versions"].items()})
    footer = ["", "Versions: " + ", ".join(versions) + "."]
    print("\n".join(footer))
    if args.markdown:
        args.markdown.write_text("\n".join([*header, *map(line, rows), *footer]) + "\n", encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for text in cpuinfo.read_text().splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
