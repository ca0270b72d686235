"""What `test_processes.py` runs in one process and, by torchrun, in two: writes what came out of it as JSON.

usage: two_processes.py FOLDER; the rank and the world size come from torchrun's environment.
"""

import json
import sys
from pathlib import Path

import torch

from minirlhf.ppo import PPOConfig, PPOTrainer
from minirlhf.ppo.advantages import compute_targets
from minirlhf.ppo.optimization import SUMS, minibatch_gradient
from tests.ppo.conftest import count_w7, make_policy, make_tokenizer


def run(folder: Path, critic: str) -> dict:
    """A gradient on the first rollout, and then a whole run."""
    config = PPOConfig(
        episodes=32, batch_size=16, ppo_epochs=2, minibatches=2, micro_batch_size=3, max_new_tokens=8, critic=critic,
        learning_rate=1e-3, eval_every=1,
    )  # fmt: skip
    prompts = [" ".join(f"w{(3 * row + word) % 31}" for word in range(1 + row % 9)) for row in range(20)]
    trainer = PPOTrainer(
        config, make_policy(), make_tokenizer(), count_w7, prompts, prompts[:5], folder=folder / critic,
        resume_minutes=0, device="cpu",
    )  # fmt: skip
    trajectory = trainer.rollout()
    targets = compute_targets(trajectory, config, trainer.kl_coef)
    # An odd number of episodes, so that the two shares differ.
    sums, tokens, _ = minibatch_gradient(
        trainer.models, trajectory, targets, list(range(15)), config, trainer.processes
    )
    result = {
        "world_size": trainer.processes.count,
        "responses": trajectory.response_ids,
        "logprobs": trajectory.logprobs.tolist(),
        "advantages": targets.advantages.tolist(),
        "statistics": dict(zip(SUMS, (sums / tokens).tolist(), strict=True)),
        "gradients": {name: p.grad.flatten().tolist() for name, p in trainer.models.named_trainable()},
    }
    result["history"] = trainer.train()
    result["weights"] = {name: p.flatten().tolist() for name, p in trainer.models.named_trainable()}
    return result | {"rank": trainer.processes.rank}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    results = {critic: run(folder, critic) for critic in ("shared", "separate")}
    (folder / f"rank{results['shared']['rank']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
