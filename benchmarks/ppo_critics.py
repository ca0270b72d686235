"""Which critic? The pipeline's PPO with each, several seeds: what it reaches, what the critic explains, what it costs.

    python benchmarks/ppo_critics.py --seeds 1 2 3 --markdown benchmarks/ppo_critics.md

Reads params.yaml and what the pipeline made (prepared posts, SFT and reward model); writes nothing but the table.
Objective is reward - missing-EOS penalty - kl_coef x KL, what PPO maximises; it is averaged over the last quarter of
the updates, and over all of them ("on the way": how fast it rises). Explained variance likewise over the last quarter.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minirlhf.hub.configs import load_tokenizer
from minirlhf.runtime.files import read_jsonl
from minirlhf.settings.params import load_params

# A value head alone learns at the rate of params.yaml (3e-3), which is too high for a whole network: a separate critic
# learns at that of SFT and of the reward model, which are networks of the same size.
SEPARATE = {"critic": "separate", "critic_learning_rate": 5e-4}
KINDS = {
    "value head on the trunk": {"critic": "shared"},
    "separate, from the SFT model": SEPARATE,
    "separate, from the reward model": SEPARATE | {"critic_init": Path("models/reward")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--episodes", type=int, help="shorter runs than params.yaml says")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    args = parser.parse_args()
    params = load_params("params.yaml")

    import torch

    from minirlhf.ppo import PPOTrainer
    from minirlhf.rewards.model import RewardModel

    torch.set_num_threads(params.threads)
    changes = {"eval_every": 0, "snapshot_every": 0}
    changes |= {"episodes": args.episodes} if args.episodes else {}
    prompts = [row["prompt"] for row in read_jsonl("data/prepared/posts/train.jsonl")]
    lines = [
        "| critic | objective | on the way | reward | KL | explained variance | episodes/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for label, kind in KINDS.items():
        kind = dict(kind)
        critic_init = kind.pop("critic_init", None)
        results = []
        for seed in args.seeds:
            trainer = PPOTrainer(
                type(params.ppo)(**(params.ppo.model_dump() | changes | kind)),
                policy="models/sft",
                tokenizer=load_tokenizer("models/sft"),
                reward=RewardModel.load("models/reward"),
                prompts=prompts,
                critic_init=critic_init,
                seed=seed,
                device="cpu",
            )
            start = time.perf_counter()
            rows = trainer.train()
            late = rows[-max(1, len(rows) // 4) :]

            def mean(name: str, of: list[dict]) -> float:
                return statistics.fmean(row[name] for row in of)

            figures = [mean("objective", late), mean("objective", rows)]
            figures += [mean(name, late) for name in ("reward", "kl", "explained_variance")]
            results.append([*figures, rows[-1]["episodes"] / (time.perf_counter() - start)])
        cells = []
        for column in zip(*results, strict=True):
            spread = f" ± {statistics.stdev(column):.2g}" if len(column) > 1 else ""
            cells.append(f"{statistics.fmean(column):.3g}{spread}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    lines.append(f"\nMean and standard deviation over seeds {', '.join(map(str, args.seeds))}.")
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
