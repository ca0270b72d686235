"""Align the SFT model: by PPO with the reward model, or by one of the baselines, as `algorithm` in the params says.

In:  prepared posts (their prompts only), the SFT model, the reward model; for DPO the comparisons, given and collected,
     of people those that their votes come to.
Out: models/ppo (the policy and its tokenizer), models/snapshots (PPO's policies on the way, if ppo.snapshot_every),
     metrics/ppo.json, plots/ppo.csv (a row an update), results/ppo_samples.jsonl (summaries while it trained).
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.runtime.errors import printable
from minirlhf.runtime.files import read_jsonl, replace_folder, write_csv, write_json, write_jsonl
from minirlhf.runtime.resume import resume_folder
from minirlhf.runtime.stage import run, set_up
from minirlhf.settings.params import Params, load_params
from minirlhf.training.live import live

SUMMARY = ("reward", "kl", "length", "entropy", "ended")  # at the end, in metrics/ppo.json


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--reward", type=Path, default=Path("models/reward"), help="folder of the reward model")
    parser.add_argument("--comparisons", type=Path, default=Path("data/prepared/comparisons"))
    parser.add_argument("--collected", type=Path, default=Path("data/collected"), help="comparisons of SFT's summaries")
    parser.add_argument("--votes", type=Path, default=Path("data/votes/candidates"), help="folder of people's votes")
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

    set_up(params.seed, params.threads)
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.device import choose_device
    from minirlhf.runtime.processes import Processes

    device = choose_device(params.device)
    Processes(device).announce(params.algorithm, params.launch)  # from here on each has its own GPU
    reward = RewardModel.load(args.reward, device=device, precision=params.precision)
    by = align_by_ppo if params.algorithm == "ppo" else align_by_baseline
    by(args, params, prompts, reward, device)


def align_by_ppo(args, params: Params, prompts: dict, reward, device: str) -> None:
    """Train and deliver by the project's PPO."""
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo.trainer import PPOTrainer

    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "ppo"}) | {"device": device}
    tokenizer = load_tokenizer(args.sft)
    # A separate critic begins as the reward model (Huang et al. 2024) where that was trained here and reads the tokens
    # of the policy, as one from the SFT model does. Else it begins as the SFT model.
    trained_here = (args.reward / "config.json").exists()
    like_policy = trained_here and reward.tokenizer.get_vocab() == tokenizer.get_vocab()
    critic_init = str(args.reward) if params.ppo.critic == "separate" and like_policy else None
    on_row = live("ppo", args.curves, args.metrics, params)

    def tell(row: dict) -> None:
        on_row(trainer.history)
        if row.get("eval_reward") is not None:
            write_jsonl(args.samples, trainer.samples)

    with resume_folder("ppo", settings, (__file__, args.posts, args.sft, args.reward)) as folder:
        trainer = PPOTrainer(
            params.ppo,
            policy=load_policy(args.sft),
            tokenizer=tokenizer,
            reward=reward,
            prompts=prompts["train"],
            eval_prompts=prompts["validation"],
            critic_init=critic_init,
            folder=folder,
            resume_minutes=params.resume_minutes,
            seed=params.seed,
            device=device,
            precision=params.precision,
            callbacks=[tell],
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
        write(args, "ppo", history, trainer.samples, trainer.delivered_episodes, trainer.stopped)


def align_by_baseline(args, params: Params, prompts: dict, reward, device: str) -> None:
    """The same by RLOO, GRPO or DPO. They keep no snapshots, and never stop early."""
    from minirlhf.baselines.align import align
    from minirlhf.feedback.votes import read_votes
    from minirlhf.models.loading import save_model

    files = [folder / "train.jsonl" for folder in (args.comparisons, args.collected)]
    comparisons = [row for file in files if file.exists() for row in read_jsonl(file)]  # none may have been collected
    if params.collect.annotators == "people":
        comparisons += read_votes(args.votes).comparisons("train")
    found = align(args.sft, reward, prompts, comparisons, params, device)
    save_model(args.output, found.policy, found.tokenizer)
    with replace_folder(args.snapshots):
        pass  # DVC expects the folder
    write(args, params.algorithm, found.history, found.samples, found.history[-1]["episodes"], None)


def write(args, algorithm: str, history: list[dict], samples: list[dict], delivered: int, stopped: str | None) -> None:
    """The curves, the samples, what was reached at the end, and after how many episodes the policy was delivered."""
    write_csv(args.curves, history)
    write_jsonl(args.samples, samples)
    last = history[-1]
    # DPO samples nothing while it trains: what it reaches is then known on held-out prompts only.
    reached = {f"ppo_{name}": last[f"eval_{name}"] if last[name] is None else last[name] for name in SUMMARY}
    ends = {"ppo_delivered_episodes": delivered, "ppo_stopped": stopped}
    write_json(args.metrics, {"algorithm": algorithm, **reached, **ends})


if __name__ == "__main__":
    run(main)
