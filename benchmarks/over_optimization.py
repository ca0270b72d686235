"""Over-optimization, and what prevents it: gold along PPO's way without a penalty, with one, and with an ensemble.

    dvc repro reward
    python benchmarks/over_optimization.py            # runs what benchmarks/over_optimization.csv lacks
    python benchmarks/over_optimization.py --show     # docs/over_optimization.png and the table

The reward is the trained network alone, without the likelihood that sees wrong facts and repetition ("blind"), or with
it ("seeing"). An ensemble is that network and two more of other seeds, trained by the reward stage; it scores the
mean of its members less their standard deviation (Coste et al. 2023). All else is PPO's section of params.yaml. Gold,
reward and KL are of the first 100 validation posts, sampled at temperature 1, every few updates.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import ROOT, Look, append, markdown, rows_of, side_by_side

TABLE, PICTURE = ROOT / "benchmarks/over_optimization.csv", ROOT / "docs/over_optimization.png"
MEMBERS = ROOT / ".resume/members"  # of the ensemble; made anew where they are missing
SEEDS = (2, 3)
EVERY, POSTS = 5, 100
# label -> the reward, what changes in PPO's section
RUNS = {
    "blind, no penalty": ("blind", {"kl_coef": 0.0}),
    "blind, kl_coef 0.05": ("blind", {}),
    "blind, kl_coef 0.2": ("blind", {"kl_coef": 0.2}),
    "ensemble, no penalty": ("ensemble", {"kl_coef": 0.0}),
    "seeing, no penalty": ("seeing", {"kl_coef": 0.0}),
}
COLUMNS = ("run", "episodes", "gold", "reward", "kl", "length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    if not args.show:
        done = {row["run"] for row in rows_of(TABLE)}
        wanted = [label for label in RUNS if label not in done]
        if any(RUNS[label][0] == "ensemble" for label in wanted):
            train_members()
        for rows in side_by_side(args.jobs, run, [(label,) for label in wanted]):
            append(TABLE, COLUMNS, rows)
    draw(rows_of(TABLE))
    print(table_of(rows_of(TABLE)))


def train_members() -> None:
    """The reward stage with other seeds."""
    from minirlhf.runtime.files import write_json
    from minirlhf.settings.params import load_params

    MEMBERS.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        folder = MEMBERS / str(seed)
        if (folder / "reward.json").exists():
            continue
        params = load_params(ROOT / "params.yaml").model_dump(mode="json") | {"seed": seed, "threads": 1}
        params["reward"]["likelihood"] = False
        write_json(MEMBERS / f"{seed}.json", params)  # JSON is YAML
        command = [sys.executable, "stages/reward.py", "--params", MEMBERS / f"{seed}.json", "--output", folder]
        command += ["--metrics", MEMBERS / f"{seed}-metrics.json", "--details", MEMBERS / f"{seed}-details"]
        subprocess.run(command, cwd=ROOT, check=True)


def run(label: str) -> list[dict]:
    """Rows of COLUMNS along one run."""
    import torch

    from minirlhf.models.loading import load_policy
    from minirlhf.ppo import PPOTrainer
    from minirlhf.rewards.combine import Ensemble
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.files import read_jsonl
    from minirlhf.settings.params import load_params

    torch.set_num_threads(1)
    kind, changes = RUNS[label]
    params = load_params(ROOT / "params.yaml")
    never = {"eval_every": 0, "snapshot_every": 0, "kl_ceiling": None}
    config = type(params.ppo)(**(params.ppo.model_dump() | never | changes))
    look, seeing = Look("validation", POSTS), RewardModel.load(ROOT / "models/reward")
    blind = [RewardModel(seeing.model, look.tokenizer, "concat", seeing.mean, seeing.scale)]
    blind += [RewardModel.load(MEMBERS / str(seed)) for seed in SEEDS if kind == "ensemble"]
    reward = {"blind": blind[0], "seeing": seeing, "ensemble": Ensemble(blind, "mean_minus_std")}[kind]
    trainer = PPOTrainer(
        config,
        load_policy(ROOT / "models/sft"),
        look.tokenizer,
        reward,
        [row["prompt"] for row in read_jsonl(ROOT / "data/prepared/posts/train.jsonl")],
        critic_init=str(ROOT / "models/reward") if config.critic == "separate" else None,
        device="cpu",
    )
    rows = [look.at_training_temperature(look.reference, reward)]
    for update in range(1, config.updates + 1):
        trainer.update()
        if update % EVERY == 0:
            rows.append(look.at_training_temperature(trainer.models.policy.model, reward))
    return [{"run": label, "episodes": at * EVERY * config.batch_size} | row for at, row in enumerate(rows)]


def table_of(rows: list[dict]) -> str:
    """Where gold was highest in each run, and where the run ended."""
    lines = []
    for label in RUNS:
        if mine := [row for row in rows if row["run"] == label]:
            top, last = max(mine, key=lambda row: float(row["gold"])), mine[-1]
            figures = [f"{float(last[name]):.2f}" for name in ("gold", "reward", "kl")]
            lines.append([label, f"{float(top['gold']):.2f}", f"{int(top['episodes']):,}", *figures])
    header = [
        "run",
        "gold at its highest",
        "after episodes",
        "gold at the end",
        "reward at the end",
        "KL at the end, nats",
    ]
    return markdown(header, lines)


def draw(rows: list[dict]) -> None:
    """Each run's own reward, and gold, along the way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharex=True)
    for label in dict.fromkeys(row["run"] for row in rows):
        mine = [row for row in rows if row["run"] == label]
        for axis, name in zip(axes, ("reward", "gold"), strict=True):
            axis.plot([int(row["episodes"]) for row in mine], [float(row[name]) for row in mine], label=label)
    for axis, title in zip(axes, ("what PPO was paid: its own training reward", "gold score, at most 6"), strict=True):
        axis.set(xlabel="episodes", title=title)
        axis.grid(alpha=0.3)
    axes[1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
