"""What the SFT model's likelihood alone gives as the reward of PPO, beside the pipeline's reward that weighs it.

    dvc repro
    python benchmarks/likelihood_alone.py

A likelihood alone is a lower temperature in disguise: it likes what the mode of SFT does, habits included. PPO runs
with the settings of params.yaml, and is compared with SFT and with models/ppo, each at its own best temperature, by
gold.
"""

import argparse
import tempfile
from pathlib import Path

from minirlhf.runtime.files import read_jsonl
from minirlhf.runtime.stage import set_up
from minirlhf.settings.params import load_params

WEIGHT = 0.1  # of a nat: about what it weighs where it is learnt beside the reward model, and nothing else is


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight", type=float, default=WEIGHT, help="reward for a nat (default: %(default)s)")
    args = parser.parse_args(argv)
    params = load_params()
    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.evaluation.evaluator import Evaluator
    from minirlhf.evaluation.selection import choose_all
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo.trainer import PPOTrainer
    from minirlhf.rewards.likelihood import Likelihood

    posts = {split: read_jsonl(f"data/prepared/posts/{split}.jsonl") for split in ("train", "validation", "test")}
    tokenizer = load_tokenizer("models/sft")
    likelihood = Likelihood.load(Path("models/sft"), {"total": args.weight})
    settings = params.ppo.model_copy(update={"eval_every": 0, "snapshot_every": 0})
    prompts = [post["prompt"] for post in posts["train"]]
    trainer = PPOTrainer(settings, "models/sft", tokenizer, likelihood, prompts, seed=params.seed)
    trainer.train()
    without_best_of_n = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"best_of_n": 1})})
    chosen_on = posts["validation"][: params.evaluate.selection_posts]
    chooser = Evaluator(chosen_on, without_best_of_n, tokenizer, likelihood)
    evaluator = Evaluator(posts["test"], without_best_of_n, tokenizer, likelihood)
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(folder)
        load_policy(folder)
        policies = {name: evaluator.load(Path(f"models/{name}")) for name in ("sft", "ppo")}
        policies["likelihood alone"] = evaluator.load(Path(folder))
        choice = choose_all(chooser, policies)
        print("| policy | temperature | gold there | gold at the training temperature |\n| --- | ---: | ---: | ---: |")
        for name, policy in policies.items():
            cells = []
            for temperature in (choice.best[name], params.ppo.temperature):
                found = evaluator.bootstrap.mean(evaluator.chooser(evaluator.sample(policy, temperature)))
                cells.append(f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})")
            print(f"| {name} | {choice.best[name]:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
