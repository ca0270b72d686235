"""How much of the returns can a critic explain at all? Fitted offline, to episodes that stay as they are.

    dvc repro ppo
    python benchmarks/critic_ceiling.py

Episodes of the SFT model and of the aligned policy (models/ppo): 4 samples of each of so many training prompts, rewards
and KL penalties as in PPO. A critic is fitted to the Monte-Carlo returns of three quarters of the prompts; printed is
the share of the variance of the others' returns that it explains. Linear: ridge regression on the policy's hidden
states, what a value head on a trunk that stays could reach. Whole: a network of its own, from the reward model, trained
as long as the held-out share rises.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    import torch

    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.ppo import PPOTrainer
    from minirlhf.rewards.model import RewardModel
    from minirlhf.runtime.files import read_jsonl
    from minirlhf.settings.params import load_params

    params = load_params(ROOT / "params.yaml")
    torch.set_num_threads(params.threads)
    prompts = [row["prompt"] for row in read_jsonl(ROOT / "data/prepared/posts/train.jsonl")]
    changes = {"eval_every": 0, "snapshot_every": 0, "samples_per_prompt": 4, "minibatches": 1, "critic": "separate"}
    changes |= {"batch_size": 4 * args.prompts, "episodes": 4 * args.prompts}
    config = type(params.ppo)(**(params.ppo.model_dump() | changes))
    print("| episodes of | linear | whole, from the reward model | as it begins |\n| --- | ---: | ---: | ---: |")
    for name in ("sft", "ppo"):
        trainer = PPOTrainer(
            config,
            load_policy(ROOT / "models" / name),
            load_tokenizer(ROOT / "models/sft"),
            RewardModel.load(ROOT / "models/reward"),
            prompts,
            reference=load_policy(ROOT / "models/sft"),
            critic_init=str(ROOT / "models/reward"),
            device="cpu",
        )
        figures = ceilings(trainer, args.epochs)
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)


def ceilings(trainer, epochs: int) -> tuple[float, float, float]:
    """Shares of the held-out variance that a linear critic, a whole network, and that one untrained explain."""
    import torch

    from minirlhf.models.logprobs import Sequences, select_states
    from minirlhf.ppo.advantages import compute_targets, explained_variance

    episodes = trainer.rollout()
    targets = compute_targets(episodes, trainer.config, trainer.kl_coef)
    mask, models = episodes.response_mask, trainer.models
    rows = range(len(episodes.prompts))
    train, held_out = list(rows[: len(rows) * 3 // 4]), list(rows[len(rows) * 3 // 4 :])

    def returns(chosen: list[int]) -> torch.Tensor:
        return targets.monte_carlo[chosen][mask[chosen]]

    def batch(chosen: list[int]) -> Sequences:
        pairs = [episodes.prompt_ids[i] for i in chosen], [episodes.response_ids[i] for i in chosen]
        return Sequences.pack(*pairs, "cpu", share=True)

    def of(chosen: list[int], function) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([function(batch(chosen[at : at + 32])) for at in range(0, len(chosen), 32)])

    features = [of(chosen, lambda one: select_states(models.policy.trunk, one)) for chosen in (train, held_out)]
    center, level = features[0].mean(0), returns(train).mean()
    states = (features[0] - center).double()
    gram = states.T @ states + 1.0 * torch.eye(states.shape[1])
    weights = torch.linalg.solve(gram, states.T @ (returns(train) - level).double())
    linear = explained_variance(((features[1] - center).double() @ weights).float(), returns(held_out))

    begins = best = explained_variance(of(held_out, models.values), returns(held_out))
    parameters = [*models.critic_trunk.parameters(), *models.value_head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-4)
    for epoch in range(epochs):
        order = torch.randperm(len(train) // 4, generator=torch.Generator().manual_seed(epoch)).tolist()
        for at in range(0, len(order), 8):
            chosen = [train[4 * prompt + sample] for prompt in order[at : at + 8] for sample in range(4)]
            loss = (models.values(batch(chosen)) - returns(chosen)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = max(best, explained_variance(of(held_out, models.values), returns(held_out)))
    return linear, best, begins


if __name__ == "__main__":
    main()
