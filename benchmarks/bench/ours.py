"""MiniRLHF's PPOTrainer on a work; a line of JSON after every update."""

import time

import torch
import transformers
from common import Clock, make_models, make_prompts, make_tokenizer, options, work_of

from minirlhf.ppo import PPOConfig, PPOTrainer, rollout
from minirlhf.rewards.model import RewardModel


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--critic", choices=("shared", "separate"), default="shared")
    args = parser.parse_args()
    work = work_of(args)
    tokenizer = make_tokenizer(work)
    policy, [classifier] = make_models(work, 1)
    config = PPOConfig(
        episodes=args.steps * work.episodes,
        batch_size=work.episodes,
        ppo_epochs=work.ppo_epochs,
        micro_batch_size=work.micro_batch,
        rollout_batch_size=work.episodes,
        max_new_tokens=work.response_tokens,
        critic=args.critic,
    )
    place = {"device": args.device, "precision": args.precision}
    reward = RewardModel(classifier, tokenizer, batch_size=work.micro_batch, **place)
    sampling = Sampling()
    rollout.generate = sampling
    clock = Clock(versions={"torch": torch.__version__, "transformers": transformers.__version__})
    phases, before = [], {"rollout": 0.0, "learn": 0.0}

    def tick(row: dict) -> None:
        now = dict(trainer.seconds)
        spent = {name: now[name] - before[name] for name in now}
        phases.append({"sample": sampling.spent, "score": spent["rollout"] - sampling.spent, "learn": spent["learn"]})
        before.update(now)
        sampling.spent = 0.0
        clock.tick(phases=phases, ratio_error=row["ratio_error"], episodes=work.episodes)

    prompts = make_prompts(work, args.steps * work.episodes)
    trainer = PPOTrainer(config, policy, tokenizer, reward, prompts, callbacks=[tick], **place)
    clock.start()
    trainer.train()


class Sampling:
    """The sampler, and the seconds spent in it. It waits for a GPU by itself: it looks at what was sampled."""

    def __init__(self):
        self.generate, self.spent = rollout.generate, 0.0

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        generation = self.generate(*args, **kwargs)
        self.spent += time.perf_counter() - start
        return generation


if __name__ == "__main__":
    main()
