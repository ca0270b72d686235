"""`minirlhf follow`: one prompt from the prepared data to PPO's gradient, with the values that were there, as a page.

It trains a few updates from the SFT model as the ppo stage would, saves nothing, and looks at one episode of the next.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.models.logprobs import Sequences
from minirlhf.ppo.advantages import compute_targets
from minirlhf.ppo.build import critic_start
from minirlhf.ppo.optimization import minibatch_gradient
from minirlhf.ppo.trainer import PPOTrainer
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime import processor
from minirlhf.runtime.device import choose_device
from minirlhf.sampling.summaries import log_probabilities
from minirlhf.text.chat import read_prepared
from minirlhf.text.prompts import encode, encode_prompts

if TYPE_CHECKING:
    from minirlhf.settings.params import Params

LAYERS = 6  # parameters with the largest gradients that are shown


def follow(params: "Params", posts: Path, sft: Path, reward: Path, updates: int) -> str:
    """The page, in Markdown.

    Args:
        posts: folder of prepared posts.
        sft, reward: folders of the two models.
        updates: that PPO has made before: at its first one the policy is the reference.

    Raises:
        UserError: an input is missing.
    """
    rows = read_prepared(posts / "train.jsonl", ("prompt", "completion"))
    device, tokenizer = choose_device(params.device), load_tokenizer(sft)
    config = params.ppo.model_copy(update={"eval_every": 0, "snapshot_every": 0, "deliver": "last"})
    trainer = PPOTrainer(
        config,
        policy=load_policy(sft),
        tokenizer=tokenizer,
        reward=RewardModel.load(reward, device=device, precision=params.precision),
        prompts=[row["prompt"] for row in rows],
        critic_init=critic_start(config, reward, tokenizer),
        seed=params.seed,
        device=device,
        precision=params.precision,
    )
    for _ in range(updates):
        trainer.update()

    trajectory = trainer.rollout()
    targets = compute_targets(trajectory, config, trainer.kl_coef)
    everybody = list(range(config.batch_size))
    minibatch_gradient(trainer.models, trajectory, targets, everybody, config, trainer.processes)
    gradients = {name: float(p.grad.norm()) for name, p in trainer.models.named_trainable() if p.grad is not None}
    seen = trainer.learn(trajectory, targets)
    ids = trajectory.prompt_ids[0], trajectory.response_ids[0]
    with torch.no_grad():
        after = trainer.models.logprobs(
            Sequences.pack([ids[0]], [ids[1]], trainer.models.policy.device), config.temperature
        )

    [row] = [row for row in rows if row["prompt"] == trajectory.prompts[0]][:1]
    count = len(ids[1])
    columns = {
        "log p": trajectory.logprobs[0],
        "reference": trajectory.reference_logprobs[0],
        "KL": targets.kl[0],
        "reward": targets.rewards[0],
        "value": trajectory.values[0],
        "return": targets.returns[0],
        "advantage": targets.advantages[0],
        "log p after": after,
        "ratio": (after - trajectory.logprobs[0][:count]).exp(),
    }
    tokens = [trainer.tokenizer.decode([token]) for token in ids[1]]
    score, kl = float(trajectory.scores[0].sum()), float(targets.kl[0].sum())
    penalty = 0.0 if trajectory.ended[0] else config.missing_eos_penalty
    largest = sorted(gradients, key=lambda name: -gradients[name])[:LAYERS]
    return "\n".join(
        [
            "# One prompt, from `prepare` to a gradient",
            "",
            f"Made by `minirlhf follow --updates {updates}` on {processor.name()}; it follows the first episode of "
            f"PPO's update {updates + 1}. Rows are tokens; all numbers are those that the code computed, rounded.",
            "",
            "## 1. A row of the prepared posts",
            "",
            *_block(row["prompt"]),
            "",
            f"Its author's summary:{row['completion']}",
            "",
            "## 2. Tokens",
            "",
            f"The prompt is {len(ids[0])} tokens, the last of them {ids[0][-6:]}, which are "
            f"`{trainer.tokenizer.decode(ids[0][-6:])!r}`.",
            "",
            "## 3. What SFT learnt",
            "",
            *_sft(sft, row, config.micro_batch_size),
            "",
            "## 4. The response, and its reward",
            "",
            *_block(trajectory.responses[0].strip()),
            "",
            f"{count} tokens; it {'ended by itself' if trajectory.ended[0] else 'was cut'}. The reward model gives "
            f"{score:.3f}. What PPO maximises is {score:.3f} - {penalty:g} (no EOS) - {trainer.kl_coef:g} x "
            f"{kl:.3f} (KL, nats) = {float(targets.rewards[0].sum()):.3f}.",
            "",
            "## 5. Token by token",
            "",
            "The score is on the last token, the KL penalty on each (`minirlhf/ppo/advantages.py`). "
            + "What the others with this prompt come to, on average, is taken from it. " * config.leave_one_out
            + "Advantages are "
            f"whitened over the {config.batch_size} episodes of the update. The last two columns are after its "
            "optimizer steps.",
            "",
            f"| token | {' | '.join(columns)} |",
            "| --- |" + " ---: |" * len(columns),
            *(
                f"| `{_cell(token)}` | {' | '.join(f'{float(column[place]):.3f}' for column in columns.values())} |"
                for place, token in enumerate(tokens)
            ),
            "",
            "## 6. The loss and its gradient",
            "",
            f"Over all tokens of the update, and its {config.ppo_epochs} x {config.minibatches} steps: policy loss "
            f"{seen['policy_loss']:.4f}, value loss {seen['value_loss']:.4f}, clipped "
            f"{100 * seen['clip_fraction']:.1f}% of the tokens. Norms of the gradient of the first loss over all "
            f"{config.batch_size} episodes, before clipping to {config.max_grad_norm:g}; the largest:",
            "",
            "| parameter | norm |",
            "| --- | ---: |",
            *(f"| `{name}` | {gradients[name]:.4f} |" for name in largest),
            "",
        ]
    )


def _sft(folder: Path, row: dict, batch_size: int) -> list[str]:
    """What the SFT model thinks of the author's summary."""
    policy, tokenizer = load_policy(folder), load_tokenizer(folder)
    target = [*encode(tokenizer, row["completion"]), tokenizer.eos_token_id]
    [total] = log_probabilities(policy, encode_prompts(tokenizer, [row["prompt"]]), [target], 1.0, batch_size).tolist()
    return [
        f"The author's summary is {len(target)} tokens, EOS included. The SFT model gives it log p = {total:.2f}: a "
        f"loss of {-total / len(target):.3f} nats a token, on the summary only."
    ]


def _block(text: str) -> list[str]:
    return ["```text", *text.splitlines(), "```"]


def _cell(token: str) -> str:
    return token.replace("|", "\\|").replace("\n", "\\n").replace("`", "'") or " "
