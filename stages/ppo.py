"""Align the SFT model: by PPO with the reward model, or by one of the baselines, as `algorithm` in the params says.

In:  prepared posts (their prompts only), the SFT model, the reward model; for DPO the comparisons, given and collected,
     of people those that their votes come to.
Out: models/ppo (the policy and its tokenizer; in snapshots/ PPO's policies on the way, if ppo.snapshot_every; in
     ppo.json how it was trained), details/ppo.json (what was reached), details/ppo.csv (a row an update),
     details/ppo_samples.jsonl (summaries while it trained), metrics/ppo.json (the update at which the alarm rang).
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's library, also in a temporary one

from minirlhf.feedback.rounds import newest_round
from minirlhf.runtime.errors import printable
from minirlhf.runtime.files import replace_folder, write_csv, write_json, write_jsonl
from minirlhf.runtime.resume import resume_folder
from minirlhf.runtime.stage import run, set_up
from minirlhf.runtime.trackers import Trackers
from minirlhf.settings.params import Params, load_params
from minirlhf.text.chat import read_prepared
from minirlhf.training.live import live

SAMPLES = "ppo_samples.jsonl"
SUMMARY = ("reward", "kl", "length", "entropy", "ended")  # at the end, in details/ppo.json


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--posts", type=Path, default=Path("data/prepared/posts"), help="folder of prepared posts")
    parser.add_argument("--sft", type=Path, default=Path("models/sft"), help="folder of the SFT model")
    parser.add_argument("--reward", type=Path, default=Path("models/reward"), help="folder of the reward model")
    parser.add_argument("--comparisons", type=Path, default=Path("data/prepared/comparisons"))
    parser.add_argument("--collected", type=Path, help="comparisons of policies' summaries (default: all of them)")
    parser.add_argument("--votes", type=Path, default=Path("data/votes/candidates"), help="folder of people's votes")
    parser.add_argument("--output", type=Path, default=Path("models/ppo"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics/ppo.json"))
    parser.add_argument("--details", type=Path, default=Path("details"), help="folder for all that was measured")
    args = parser.parse_args(argv)
    args.collected = args.collected or newest_round()
    params = load_params(args.params)
    posts = {split: read_prepared(args.posts / f"{split}.jsonl", ("prompt",)) for split in ("train", "validation")}
    if params.ppo_seed is not None:  # here alone, so that the stages before it are not run again
        params = params.model_copy(update={"seed": params.ppo_seed})
    prompts = {split: [row["prompt"] for row in rows] for split, rows in posts.items()}

    set_up(params.seed, params.threads, params.arithmetic)
    from minirlhf.models.checks import check_judge
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.device import choose_device
    from minirlhf.runtime.processes import Processes

    check_judge(params)  # who is asked after it
    device = choose_device(params.device, params.precision)
    Processes(device).announce(params.algorithm, params.launch)  # from here on each has its own GPU
    reward = RewardModel.load(args.reward, device=device, precision=params.precision)
    by = align_by_ppo if params.algorithm == "ppo" else align_by_baseline
    with Trackers("ppo", params.trackers, params.model_dump(mode="json")) as trackers:
        by(args, params, prompts, reward, device, trackers)


def align_by_ppo(args, params: Params, prompts: dict, reward, device: str, trackers: Trackers) -> None:
    """Train and deliver by the project's PPO."""
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo.build import critic_start
    from minirlhf.ppo.trainer import PPOTrainer

    settings = params.model_dump(mode="json", include={"seed", "threads", "precision", "ppo"}) | {"device": device}
    tokenizer = load_tokenizer(args.sft)
    on_row = live(args.details / "ppo.csv", trackers)

    def tell(row: dict) -> None:
        on_row(trainer.history)
        if row.get("eval_reward") is not None:
            write_jsonl(args.details / SAMPLES, trainer.samples)
            show_samples(trackers, trainer.samples, row["update"])

    with resume_folder("ppo", settings, (__file__, args.posts, args.sft, args.reward)) as folder:
        trainer = PPOTrainer(
            params.ppo,
            policy=load_policy(args.sft),
            tokenizer=tokenizer,
            reward=reward,
            prompts=prompts["train"],
            eval_prompts=prompts["validation"],
            critic_init=critic_start(params.ppo, args.reward, tokenizer),
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
        alarm = None if trainer.warning.alarm is None else trainer.warning.alarm.as_json()
        training = {"algorithm": "ppo", "episodes": trainer.delivered_episodes, "stopped": trainer.stopped}
        training |= {"alarm": alarm}
        with replace_folder(args.output) as new:
            trainer.save(new)
            write_json(new / "ppo.json", training)
            if (folder / "snapshots").exists():
                shutil.copytree(folder / "snapshots", new / "snapshots")
        write(args, training, history, trainer.samples)


def align_by_baseline(args, params: Params, prompts: dict, reward, device: str, trackers: Trackers) -> None:
    """The same by RLOO, GRPO or DPO. They keep no snapshots, listen to no alarm, and never stop early."""
    from minirlhf.baselines.align import align
    from minirlhf.feedback.votes import read_votes
    from minirlhf.models.loading import save_model

    files = [folder / "train.jsonl" for folder in (args.comparisons, args.collected)]
    files = [file for file in files if file.exists()]  # none may have been collected
    comparisons = [row for file in files for row in read_prepared(file)]
    if params.collect.annotators == "people":
        comparisons += read_votes(args.votes).comparisons("train")
    sections = {"seed", "threads", "precision", "algorithm", params.algorithm, "ppo"}
    settings = params.model_dump(mode="json", include=sections) | {"device": device, "comparisons": comparisons}
    on_row = live(args.details / "ppo.csv", trackers)
    with resume_folder("ppo", settings, (__file__, args.posts, args.sft, args.reward)) as folder:
        found = align(args.sft, reward, prompts, comparisons, params, device, folder, on_row)
        episodes = found.history[-1]["episodes"]
        training = {"algorithm": params.algorithm, "episodes": episodes, "stopped": None, "alarm": None}
        with replace_folder(args.output) as new:
            save_model(new, found.policy, found.tokenizer)
            write_json(new / "ppo.json", training)
        write(args, training, found.history, found.samples)
    on_row(found.history)
    for row in found.history:
        show_samples(trackers, found.samples, row["update"])


def show_samples(trackers: Trackers, samples: list[dict], update: int) -> None:
    """A table of the summaries that were sampled after an update."""
    trackers.table("samples", [sample for sample in samples if sample["update"] == update], update)


def write(args, training: dict, history: list[dict], samples: list[dict]) -> None:
    """How it was trained and what was reached at the end; the curves; the samples; the alarm."""
    write_csv(args.details / "ppo.csv", history)
    write_jsonl(args.details / SAMPLES, samples)
    last = history[-1]
    # DPO samples nothing while it trains: what it reaches is then known on held-out prompts only.
    reached = {name: last[f"eval_{name}"] if last[name] is None else last[name] for name in SUMMARY}
    write_json(args.details / "ppo.json", training | reached)
    alarm = training["alarm"]
    write_json(args.metrics, {"ppo_alarm_update": None if alarm is None else alarm["update"]})


if __name__ == "__main__":
    run(main)
