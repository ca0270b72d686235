"""How much alignment gains, best against best, with the embedded authors' habits at 0, 0.5 and 1 of their rates.

    dvc repro && git add -A && git commit -m "results"
    dvc exp run --temp -n habits-0 -S data.habits=0
    dvc exp run --temp -n habits-0.5 -S data.habits=0.5
    python benchmarks/habits.py HEAD habits-0.5 habits-0

Reads what each run left in git, prints a table and draws docs/habits.png.
"""

import argparse
import io
import json
import subprocess

from matplotlib.figure import Figure
from ruamel.yaml import YAML

POLICIES = {"sft": ("SFT", "#4878a8"), "ppo": ("PPO", "#c8641e")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="commits, or names of experiments")
    parser.add_argument("--picture", default="docs/habits.png")
    args = parser.parse_args(argv)
    found = sorted((read(run) for run in args.runs), key=lambda row: row["habits"])
    print("| habits | SFT at its best | PPO at its best | PPO beats SFT |\n| ---: | ---: | ---: | ---: |")
    for row in found:
        cells = [f"{row[name]['value']:.2f} ({row[name]['low']:.2f} to {row[name]['high']:.2f})" for name in POLICIES]
        rate = row["win_rate"]
        cells.append(f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})")
        print(f"| {row['habits']:g} | {' | '.join(cells)} |")
    draw(found, args.picture)


def read(run: str) -> dict:
    """Of one run the habits, and each policy's gold score at its best temperature with its interval."""
    commit = commit_of(run)
    evaluate = json.loads(show(commit, "results/details/evaluate.json"))
    params = YAML(typ="safe").load(io.StringIO(show(commit, "params.yaml")))
    scores = {name: evaluate["intervals"]["best"][name]["gold"] for name in POLICIES}
    return {"habits": params["data"]["habits"], "win_rate": evaluate["win_rate"]["ppo_vs_sft"], **scores}


def commit_of(run: str) -> str:
    """The commit of an experiment's name, or of anything that git knows."""
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    experiments = {line.split()[0].rsplit("/", 1)[1]: line.split()[1] for line in listed}
    return experiments.get(run) or git("rev-parse", run).strip()


def show(commit: str, path: str) -> str:
    return git("show", f"{commit}:{path}")


def git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], text=True)


def draw(rows: list[dict], path: str) -> None:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    ax = figure.subplots()
    x = [row["habits"] for row in rows]
    for name, (label, color) in POLICIES.items():
        low, high = ([row[name][end] for row in rows] for end in ("low", "high"))
        ax.vlines(x, low, high, color=color, linewidth=2.2, alpha=0.5)
        ax.plot(x, [row[name]["value"] for row in rows], "o-", color=color, label=label)
    ax.set_xlabel("habits of the authors, share of their rates")
    ax.set_ylabel("best gold score, points of 6")
    ax.set_ylim(top=6.1)
    ax.set_xticks(x)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
