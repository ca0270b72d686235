"""PPO, RLOO, GRPO, DPO and best-of-n on the same SFT and reward models, several seeds: what each reaches, at what cost.

    dvc repro reward
    python benchmarks/algorithms.py --seeds 1 2 3 4 5    # runs what benchmarks/algorithms.csv lacks
    python benchmarks/algorithms.py --show

Settings are those of params.yaml, each chosen on validation posts (benchmarks/lab.py). All runs begin from the same SFT
model: the seed is that of alignment. Figures are of the 400 test posts: at temperature 1, and "best" at the temperature
that was best on the validation posts. Seconds are of processor time, one thread, runs side by side (`--jobs`); of
best-of-n they are those of its 16 x 400 summaries.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import ROOT, Look, aligned, append, changed, markdown, mean_and_spread, rows_of, side_by_side

TABLE = ROOT / "benchmarks/algorithms.csv"
ALGORITHMS = ("ppo", "rloo", "grpo", "dpo", "best of 16")
COLUMNS = (
    "algorithm",
    "seed",
    "gold",
    "best",
    "temperature",
    "reward",
    "kl",
    "length",
    "explained_variance",
    "seconds",
)

FIGURES = {"gold": "gold at 1", "best": "gold at its best", "explained_variance": "explained variance"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="what is in the table, and nothing else")
    args = parser.parse_args()
    if not args.show:
        done = {(row["algorithm"], int(row["seed"])) for row in rows_of(TABLE)}
        wanted = [(name, seed) for seed in args.seeds for name in args.algorithms if (name, seed) not in done]
        for row in side_by_side(args.jobs, run, wanted):
            append(TABLE, COLUMNS, [row])
    print(tables(rows_of(TABLE)))


def run(algorithm: str, seed: int) -> dict:
    """Align, choose a temperature on the validation posts, and look at the test posts."""
    from minirlhf.rewards.model import RewardModel

    reward = RewardModel.load(ROOT / "models/reward")
    row = {"algorithm": algorithm, "seed": seed}
    if algorithm == "best of 16":
        return row | best_of(16, seed, reward)
    params = changed(algorithm, seed, {})
    policy, explained, seconds = aligned(params, reward)
    validation, test = Look("validation"), Look("test")

    def gold(look: Look, temperature: float) -> float:
        return statistics.fmean(look.golds(look.drawn(policy, temperature)))

    chosen = max(params.evaluate.temperatures, key=lambda temperature: gold(validation, temperature))
    row |= {"best": gold(test, chosen), "temperature": chosen, "explained_variance": explained, "seconds": seconds}
    return row | test.at_training_temperature(policy, reward)


def best_of(count: int, seed: int, reward) -> dict:
    """The same of the best of so many samples of the SFT model by the reward model; KL is the bound log n - (n-1)/n."""
    import math

    import torch

    from minirlhf.sampling.summaries import sample

    torch.set_num_threads(1)
    temperatures = changed("ppo", seed, {}).evaluate.temperatures

    def picked(look: Look, temperature: float) -> tuple[list[float], list[float], list[float]]:
        options = {"temperature": temperature, "max_new_tokens": 53, "seed": seed, "samples_per_prompt": count}
        drawn = sample(look.reference, look.tokenizer, look.prompts, **options)
        prompts = [prompt for prompt in look.prompts for _ in range(count)]
        scores = reward(prompts, drawn.texts, drawn.ended.tolist())
        kept = [max(range(at, at + count), key=scores.__getitem__) for at in range(0, len(scores), count)]
        golds = look.golds(
            type(drawn)([drawn.texts[i] for i in kept], drawn.ended[kept], [drawn.token_ids[i] for i in kept])
        )
        return golds, [scores[i] for i in kept], drawn.lengths[kept].tolist()

    validation, test = Look("validation", 100), Look("test")
    chosen = max((t for t in temperatures if t), key=lambda t: statistics.fmean(picked(validation, t)[0]))
    started = time.process_time()
    golds, scores, lengths = picked(test, 1.0)
    seconds = time.process_time() - started
    best = golds if chosen == 1 else picked(test, chosen)[0]
    found = {"gold": golds, "best": best, "reward": scores, "length": lengths}
    found = {name: statistics.fmean(numbers) for name, numbers in found.items()}
    bound = math.log(count) - (count - 1) / count
    return found | {"temperature": chosen, "kl": bound, "explained_variance": None, "seconds": seconds}


def tables(given: list[dict]) -> str:
    """Means of each algorithm, ± the standard deviation between seeds; and PPO less each other, paired by seed."""
    from minirlhf.statistics.intervals import mean_interval

    rows = {(row["algorithm"], row["seed"]): row for row in given}
    figures = ("gold", "best", "reward", "kl", "length", "explained_variance", "seconds")
    names = [name for name in ALGORITHMS if any(algorithm == name for algorithm, _ in rows)]

    def lead(name: str, figure: str) -> str:
        seeds = [seed for algorithm, seed in rows if algorithm == name and ("ppo", seed) in rows]
        found = mean_interval([float(rows["ppo", seed][figure]) - float(rows[name, seed][figure]) for seed in seeds])
        return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"

    def line(name: str) -> list[str]:
        mine = [row for (algorithm, _), row in rows.items() if algorithm == name]
        return [
            name if name.startswith("best") else name.upper(),
            str(len(mine)),
            *(mean_and_spread(mine, f) for f in figures),
        ]

    whole = markdown(["algorithm", "seeds", *(FIGURES.get(figure, figure) for figure in figures)], map(line, names))
    leads = (
        [name if name.startswith("best") else name.upper(), lead(name, "gold"), lead(name, "best")]
        for name in names[1:]
    )
    return whole + "\n\n" + markdown(["PPO less", "gold at temperature 1", "gold at its best"], leads)


if __name__ == "__main__":
    main()
