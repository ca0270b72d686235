"""Training of a reward model on comparisons, with TRL's RewardTrainer."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from trl import RewardConfig, RewardTrainer

from minirlhf.models.prefixes import shares_prefixes
from minirlhf.rewards.model import RewardModel, pad, raw_scores
from minirlhf.text.comparisons import group_comparisons
from minirlhf.training.guards import FiniteTrainer, HalvingTrainer
from minirlhf.training.loop import OnRow, fit, pass_through

if TYPE_CHECKING:
    from minirlhf.settings.params import Params


def encode_group(reward: RewardModel, group: dict) -> dict:
    """What the reward model reads of every summary of a group: the very ids that it will score."""
    texts, ended = map(list, zip(*group["summaries"], strict=True))
    sequences = reward.encode([group["prompt"]] * len(texts), texts, ended)
    return {"sequences": sequences, "pairs": [list(pair) for pair in group["pairs"]]}


def collate_groups(groups: list[dict]) -> dict[str, Tensor]:
    """Right-pad all sequences of a batch of groups.

    >>> one, two, three = {"input_ids": [5, 6, 7]}, {"input_ids": [5, 6]}, {"input_ids": [8]}
    >>> batch = collate_groups([{"sequences": [one, two], "pairs": [[1, 0]]},
    ...                         {"sequences": [three, three], "pairs": [[0, 1]]}])
    >>> batch["input_ids"].tolist(), batch["lengths"].tolist(), batch["pairs"].tolist()
    ([[5, 6, 7], [5, 6, 0], [8, 0, 0], [8, 0, 0]], [3, 2, 1, 1], [[1, 0], [2, 3]])
    >>> batch["groups"].tolist()
    [0, 0, 1, 1]

    Returns what the model reads, each [N, T] (`input_ids`, and `token_type_ids` where sequences have them), `lengths`
    [N], `groups` [N] (their posts), `pairs` [M, 2], which index the N sequences, and their number, `comparisons`. What
    stands in the padding is never read: masks are made from lengths.
    """
    sequences = [sequence for group in groups for sequence in group["sequences"]]
    pairs, offset = [], 0
    for group in groups:
        pairs += [[offset + index for index in pair] for pair in group["pairs"]]
        offset += len(group["sequences"])
    sizes = torch.tensor([len(group["sequences"]) for group in groups])
    return pad(sequences) | {
        "groups": torch.arange(len(groups)).repeat_interleave(sizes),
        "pairs": torch.tensor(pairs),
        "comparisons": len(pairs),
    }


class GroupedRewardTrainer(FiniteTrainer, HalvingTrainer, RewardTrainer):
    """TRL's RewardTrainer on groups of comparisons (see `group_comparisons`) instead of single pairs.

    Departs from it in that a summary is encoded once for all comparisons it is in, and its post once for all summaries,
    that a decoder's score is read at the last token by length (TRL looks for the last token that is not padding, which
    for GPT-2 skips the EOS), and that an encoder may be trained, on post and summary as a pair of texts.
    """

    stage = "reward"

    def __init__(self, model, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        # Activations that are computed again would need keys and values that are gone by then.
        self._shares = (
            not self.args.gradient_checkpointing and hasattr(model, "score") and shares_prefixes(model.base_model)
        )

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset  # encoded already

    def _set_signature_columns_if_needed(self):
        self._signature_columns = ["sequences", "pairs"]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with self.accelerator.autocast():  # accelerate's own is around the model's `forward`, which is not called
            rewards = pass_through(model, raw_scores, **self._read(inputs))
        chosen, rejected = rewards[inputs["pairs"]].unbind(1)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).sum() / inputs["comparisons"]
        mode = "train" if self.model.training else "eval"
        accuracy = self.accelerator.gather((chosen > rejected).float().mean())  # of each process's micro-batch
        self._metrics[mode]["accuracy"].append(accuracy.mean().item())
        return (loss, {"rewards": rewards}) if return_outputs else loss

    def parts(self, inputs, number):
        """Comparisons apart, each with the summaries it compares."""
        parts = []
        for pairs in inputs["pairs"].chunk(number):
            compared, pairs = pairs.unique(return_inverse=True)
            summaries = {name: rows[compared] for name, rows in self._read(inputs).items()}
            parts.append(inputs | summaries | {"pairs": pairs})
        return parts

    def _read(self, inputs: dict) -> dict[str, Tensor]:
        """What `raw_scores` takes of a batch, a row a summary."""
        others = ("pairs", "comparisons") if self._shares else ("pairs", "comparisons", "groups")
        return {name: rows for name, rows in inputs.items() if name not in others}


def train_reward_model(
    model,
    tokenizer,
    train: list[dict],
    validation: list[dict],
    params: "Params",
    folder: Path,
    on_row: OnRow | None = None,
) -> list[dict]:
    """Train `model` (a sequence classifier of one label) in place on rows of `prompt`, `chosen`, `rejected`.

    Args:
        tokenizer: the model's own; it need not be the policy's.
        folder: for resume points.
        on_row: called with the history so far after each logged row.

    Returns:
        the history, a row a logged step: step, train_loss, eval_loss (nats a comparison), eval_accuracy.

    Raises:
        TrainingError: a loss, a gradient or the weights are no longer finite.
        UserError: `reward.format` does not suit the tokenizer, or a summary is too long for the model.
    """
    reward = RewardModel(model, tokenizer, format=params.reward.format, device=model.device)

    def encoded(rows: list[dict]) -> list[dict]:
        return [encode_group(reward, group) for group in group_comparisons(rows)]

    return fit(
        GroupedRewardTrainer,
        RewardConfig,
        model,
        tokenizer,
        encoded(train),
        encoded(validation),
        params=params,
        stage="reward",
        columns={"loss": "train_loss", "eval_loss": "eval_loss", "eval_accuracy": "eval_accuracy"},
        folder=folder,
        on_row=on_row,
        data_collator=collate_groups,
    )
