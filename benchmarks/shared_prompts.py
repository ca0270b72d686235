"""What it saves to run a prompt once for all that follows it: a step of the reward model, an update of PPO.

    dvc repro reward
    python benchmarks/shared_prompts.py

Seconds of processor time on one thread, medians of rounds in turn. A step of the reward model has 16 posts with five
summaries each, forward and backward; an update of PPO has 64 episodes, one sample of 64 prompts or four of 16, all else
as in params.yaml.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.runs import ROOT, changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    for what, one, other in (("reward step", *reward_steps()), ("PPO update", ppo_update(1), ppo_update(4))):
        taken = [(seconds(one), seconds(other)) for _ in range(args.rounds)]
        alone, shared = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(left / right for left, right in taken)
        print(f"{what}: {alone:.2f} s, with prompts shared {shared:.2f} s: {ratio:.1f} times as fast", flush=True)


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def reward_steps() -> tuple[Callable[[], None], Callable[[], None]]:
    """The gradient of a batch, each summary with its post, and each post once."""
    import torch

    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.models.loading import new_reward_model
    from minirlhf.reward_modeling.train import collate_groups, encode_group
    from minirlhf.rewards.model import RewardModel, raw_scores
    from minirlhf.runtime.files import read_jsonl
    from minirlhf.text.comparisons import group_comparisons

    sft = ROOT / "models/sft"
    reward = RewardModel(new_reward_model(sft, None), read_tokenizer(sft, None), "concat")
    groups = group_comparisons(read_jsonl(ROOT / "data/collected/train.jsonl"))[:16]
    batch = collate_groups([encode_group(reward, group) for group in groups])
    whole = {name: batch[name] for name in ("input_ids", "lengths")}

    def step(**inputs: torch.Tensor) -> None:
        chosen, rejected = raw_scores(reward.model, **inputs)[batch["pairs"]].unbind(1)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean()).backward()
        reward.model.zero_grad()

    return lambda: step(**whole), lambda: step(**whole, groups=batch["groups"])


def ppo_update(samples: int) -> Callable[[], object]:
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo import PPOTrainer
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.files import read_jsonl

    config = changed("ppo", 1, {"samples_per_prompt": samples}).ppo
    sft, reward = ROOT / "models/sft", ROOT / "models/reward"
    prompts = [row["prompt"] for row in read_jsonl(ROOT / "data/prepared/posts/train.jsonl")]
    options = {"critic_init": str(reward)} if config.critic == "separate" else {}
    trainer = PPOTrainer(
        config, load_policy(sft), load_tokenizer(sft), RewardModel.load(reward), prompts, device="cpu", **options
    )
    return trainer.update


if __name__ == "__main__":
    main()
