"""One side of `ppo_vs_trl.py`: MiniRLHF's PPOTrainer. Prints one line of JSON."""

import argparse
import json
import time

import torch
import transformers
from ppo_work import WORKS, make_models, make_prompts, make_tokenizer, report

from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.rewards.model import RewardModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORKS, default="tiny")
    parser.add_argument("--critic", choices=["shared", "separate"], default="shared")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = WORKS[args.work]
    tokenizer = make_tokenizer(work)
    policy, [classifier] = make_models(work, 1)
    config = PPOConfig(
        episodes=args.steps * work.episodes,
        batch_size=work.episodes,
        ppo_epochs=work.ppo_epochs,
        micro_batch_size=work.micro_batch,
        max_new_tokens=work.response_tokens,
        critic=args.critic,
    )
    reward = RewardModel(classifier, tokenizer, batch_size=work.micro_batch)
    times = [time.perf_counter()]
    prompts = make_prompts(work, args.steps * work.episodes)
    trainer = PPOTrainer(
        config,
        policy,
        tokenizer,
        reward,
        prompts,
        device="cpu",
        callbacks=[lambda row: times.append(time.perf_counter())],
    )
    times[0] = time.perf_counter()
    trainer.train()
    seconds = [after - before for before, after in zip(times, times[1:], strict=False)]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(report(seconds, versions) | {"phases": trainer.seconds}))


if __name__ == "__main__":
    main()
