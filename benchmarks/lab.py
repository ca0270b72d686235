"""The laboratory: variants of an algorithm's settings, on the same SFT and reward models, judged on validation posts.

    dvc repro reward
    python benchmarks/lab.py --seeds 1 2 3 --table benchmarks/lab.csv [VARIANT ...]
    python benchmarks/lab.py --show

One row a run is appended to the table as it ends; what stands there is not run again.
Runs go side by side, one thread each (`--jobs`). Gold, reward and KL are of the 200 validation posts, sampled at
temperature 1 with the same random numbers for all; `best` is gold at the best of the temperatures of
evaluate.temperatures. Explained variance (of Monte-Carlo returns) is the mean over the second half of the updates.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import ROOT, Look, aligned, append, changed, markdown, mean_and_spread, rows_of, side_by_side

# Each algorithm as it was before this laboratory; what is not named is as in params.yaml.
BEFORE = {
    "samples_per_prompt": 1,
    "critic": "shared",
    "learning_rate": 1.5e-4,
    "critic_learning_rate": 3e-3,
    "gae_lambda": 0.95,
}
RLOO = {"learning_rate": 3e-4, "beta": 0.05}
GRPO = {"learning_rate": 3e-4, "beta": 0.5}
DPO = {"learning_rate": 3e-4, "beta": 0.1}
FOUR = BEFORE | {"samples_per_prompt": 4}
RATE = FOUR | {"learning_rate": 3e-4}
SEPARATE = RATE | {"critic": "separate", "critic_learning_rate": 5e-4}
VARIANTS: dict[str, tuple[str, dict]] = {
    "ppo 1 sample": ("ppo", BEFORE),
    "ppo 4 samples": ("ppo", FOUR),
    "rate": ("ppo", RATE),
    "rate, lambda 1": ("ppo", RATE | {"gae_lambda": 1.0}),
    "rate, head 1e-3": ("ppo", RATE | {"critic_learning_rate": 1e-3}),
    "rate, head 3e-4": ("ppo", RATE | {"critic_learning_rate": 3e-4}),
    "rate, no value clip": ("ppo", RATE | {"value_clip_range": 100.0}),
    "rate, separate": ("ppo", SEPARATE),
    "rate, separate, no value clip": ("ppo", SEPARATE | {"value_clip_range": 100.0}),
    "rate, separate, lambda 1": ("ppo", SEPARATE | {"gae_lambda": 1.0}),
    "rate 6e-4, separate": ("ppo", SEPARATE | {"learning_rate": 6e-4}),
    "rate 6e-4, separate, lambda 1": ("ppo", SEPARATE | {"learning_rate": 6e-4, "gae_lambda": 1.0}),
    "rate, separate, lambda 1, kl 0.03": ("ppo", SEPARATE | {"gae_lambda": 1.0, "kl_coef": 0.03}),
    "rate, separate, lambda 1, 4 minibatches": (
        "ppo",
        SEPARATE | {"gae_lambda": 1.0, "minibatches": 4, "micro_batch_size": 16},
    ),
    "rloo": ("rloo", RLOO),
    "rloo, rate 1.5e-4": ("rloo", RLOO | {"learning_rate": 1.5e-4}),
    "rloo, rate 6e-4": ("rloo", RLOO | {"learning_rate": 6e-4}),
    "rloo, beta 0.03": ("rloo", RLOO | {"beta": 0.03}),
    "rloo, rate 6e-4, beta 0.03": ("rloo", RLOO | {"learning_rate": 6e-4, "beta": 0.03}),
    "grpo": ("grpo", GRPO),
    "grpo, beta 0.1": ("grpo", GRPO | {"beta": 0.1}),
    "grpo, beta 0.05": ("grpo", GRPO | {"beta": 0.05}),
    "dpo": ("dpo", DPO),
    "dpo, beta 0.3": ("dpo", DPO | {"beta": 0.3}),
    "dpo, rate 1e-4": ("dpo", DPO | {"learning_rate": 1e-4}),
}
COLUMNS = ("variant", "seed", "gold", "best", "temperature", "reward", "kl", "length", "explained_variance", "seconds")

FIGURES = {"gold": "gold at 1", "best": "gold at its best", "explained_variance": "explained variance"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help="by default all: " + ", ".join(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks/lab.csv")
    parser.add_argument("--show", action="store_true", help="means of what is in the table, and nothing else")
    args = parser.parse_args()
    unknown = set(args.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"no variant {', '.join(sorted(unknown))}; there are: {', '.join(VARIANTS)}")
    if not args.show:
        measure(args.variants or list(VARIANTS), args.seeds, args.jobs, args.table)
    print(table_of(rows_of(args.table)))


def measure(variants: list[str], seeds: list[int], jobs: int, table: Path) -> None:
    """Append a row for each variant and seed that has none."""
    done = {(row["variant"], int(row["seed"])) for row in rows_of(table)}
    wanted = [(variant, seed) for seed in seeds for variant in variants if (variant, seed) not in done]
    for row in side_by_side(jobs, run, wanted):
        append(table, COLUMNS, [row])
        print(json.dumps(row), flush=True)


def run(variant: str, seed: int) -> dict:
    """Align by a variant, and look at its summaries of validation posts."""
    from minirlhf.rewards.model import RewardModel

    params, reward = changed(VARIANTS[variant][0], seed, VARIANTS[variant][1]), RewardModel.load(ROOT / "models/reward")
    policy, explained, seconds = aligned(params, reward)
    look = Look("validation")
    found = {
        temperature: statistics.fmean(look.golds(look.drawn(policy, temperature)))
        for temperature in params.evaluate.temperatures
    }
    best = max(found, key=found.__getitem__)
    row = {"variant": variant, "seed": seed, "best": found[best], "temperature": best}
    return row | look.at_training_temperature(policy, reward) | {"explained_variance": explained, "seconds": seconds}


def table_of(rows: list[dict]) -> str:
    """Means of each variant, ± the standard deviation between seeds."""
    figures = [name for name in COLUMNS if name not in ("variant", "seed", "temperature")]
    variants = {variant: [row for row in rows if row["variant"] == variant] for variant in VARIANTS}
    lines = (
        [variant, str(len(mine)), *(mean_and_spread(mine, figure) for figure in figures)]
        for variant, mine in variants.items()
        if mine
    )
    return markdown(["variant", "seeds", *(FIGURES.get(figure, figure) for figure in figures)], lines)


if __name__ == "__main__":
    main()
