"""PPO: align the SFT model with the reward model, held to the SFT model by a KL penalty.

In:  prepared posts (their prompts only), the SFT model, the reward model.
Out: models/ppo (the policy and its tokenizer), models/snapshots (policies on the way, if ppo.snapshot_every),
     metrics/ppo.json, plots/ppo.csv (a row an update), results/ppo_samples.jsonl (summaries while it trained).
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.errors import printable
from minirlhf.files import read_jsonl, replace_folder, write_csv, write_json, write_jsonl
from minirlhf.params import load_params
from minirlhf.resume import resume_folder
from minirlhf.stage import run, set_up
from minirlhf.watch import live

SUMMARY = ("reward", "kl", "length", "entropy", "ended")  # of the last update, in metrics/ppo.json


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--reward", type=Path, default=Path("models/reward"), help="folder of the reward model")
    parser.add_argument("--output", type=Path, default=Path("models/ppo"))
    parser.add_argument("--snapshots", type=Path, default=Path("models/snapshots"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/ppo.json"))
    parser.add_argument("--curves", type=Path, default=Path("plots/ppo.csv"))
    parser.add_argument("--samples", type=Path, default=Path("results/ppo_samples.jsonl"))
    args = parser.parse_args(argv)
    params = load_params(args.params)
    posts = {split: read_jsonl(args.posts / f"{split}.jsonl", ("prompt",)) for split in ("train", "validation")}
    if params.ppo_seed is not None:  # here alone, so that the stages before it are not run again
        params = params.model_copy(update={"seed": params.ppo_seed})
    prompts = {split: [row["prompt"] for row in rows] for split, rows in posts.items()}

    set_up(params)
    from minirlhf import models
    from minirlhf.ppo.trainer import PPOTrainer
    from minirlhf.rewards.model import RewardModel

    device = models.choose_device(params.device)
    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "ppo"}) | {"device": device}
    # A separate critic begins as the reward model (Huang et al. 2024) where that was trained here, from the SFT model,
    # so that their tokenizers agree. Else it begins as the SFT model.
    trained_here = (args.reward / "config.json").exists()
    critic_init = str(args.reward) if params.ppo.critic == "separate" and trained_here else None
    on_row = live("ppo", args.curves, args.metrics, params)
    with resume_folder("ppo", settings, (__file__, args.posts, args.sft, args.reward)) as folder:
        trainer = PPOTrainer(
            params.ppo,
            policy=models.load_policy(args.sft),
            tokenizer=models.load_tokenizer(args.sft),
            reward=RewardModel.load(args.reward, device=device, precision=params.precision),
            prompts=prompts["train"],
            eval_prompts=prompts["validation"],
            critic_init=critic_init,
            folder=folder,
            resume_minutes=params.resume_minutes,
            seed=params.seed,
            device=device,
            precision=params.precision,
            callbacks=[lambda _: on_row(trainer.history)],
        )
        history = trainer.train()
        if not trainer.processes.is_main:
            return
        if trainer.stopped is not None:
            print(f"ppo: stopped early: {printable(trainer.stopped)}", file=sys.stderr)
        trainer.save(args.output)
        with replace_folder(args.snapshots) as new:
            if (folder / "snapshots").exists():
                shutil.copytree(folder / "snapshots", new, dirs_exist_ok=True)
        write_csv(args.curves, history)
        write_jsonl(args.samples, trainer.samples)
        last = history[-1]
        write_json(args.metrics, {f"ppo_{name}": last[name] for name in SUMMARY} | {"ppo_stopped": trainer.stopped})


if __name__ == "__main__":
    run(main)
