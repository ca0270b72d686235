"""What an experiment takes beside its ppo and evaluate stages: DVC itself, `source`, and `report`.

    python benchmarks/experiment_cost.py grpo.beta=0.51 ppo.kl_coef=0.051

Runs `dvc exp run -S SETTING` for each setting in this checkout, whose state is committed and up to date; prints seconds
by stage as seen from outside, and puts the workspace back.
"""

import argparse
import subprocess
import time

import psutil

STAGES = ("source", "ppo", "evaluate", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE")
    print("| setting | whole | " + " | ".join(STAGES) + " | beside ppo and evaluate |", flush=True)
    for setting in parser.parse_args().settings:
        whole, stages = measure(["dvc", "exp", "run", "-q", "-S", setting])
        subprocess.run(["git", "checkout", "-q", "."], check=True)
        subprocess.run(["dvc", "checkout", "-q"], check=True)
        beside = whole - stages["ppo"] - stages["evaluate"]
        cells = [f"{seconds:.1f}" for seconds in (whole, *stages.values(), beside)]
        print(f"| {setting} | {' | '.join(cells)} |", flush=True)


def measure(command: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds that a command takes, and those in which the process of each stage was there; 0 where it never was."""
    began = time.monotonic()
    first, last = {}, {}
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    line = child.cmdline()
                except psutil.Error:  # gone while we looked
                    continue
                for stage in STAGES:
                    if f"stages/{stage}.py" in line:
                        last[stage] = time.monotonic()
                        first.setdefault(stage, last[stage])
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - began, {stage: last.get(stage, 0) - first.get(stage, 0) for stage in STAGES}


if __name__ == "__main__":
    main()
