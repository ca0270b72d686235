"""Training of a reward model on comparisons, with TRL's RewardTrainer."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from trl import RewardConfig, RewardTrainer

from minirlhf.comparisons import group_comparisons
from minirlhf.finite import FiniteTrainer
from minirlhf.prompts import encode
from minirlhf.training import OnRow, fit, pass_through

if TYPE_CHECKING:
    from minirlhf.params import Params


def encode_group(tokenizer, group: dict) -> dict:
    """Token ids of every summary of a group after its prompt, with EOS exactly where the summary ended by itself."""
    prompt_ids = encode(tokenizer, group["prompt"])
    sequences = []
    for text, ended in group["summaries"]:
        sequences.append(prompt_ids + encode(tokenizer, text) + [tokenizer.eos_token_id] * ended)
    return {"sequences": sequences, "pairs": [list(pair) for pair in group["pairs"]]}


def collate_groups(groups: list[dict]) -> dict[str, Tensor]:
    """Right-pad all sequences of a batch of groups.

    >>> batch = collate_groups([{"sequences": [[5, 6, 7], [5, 6]], "pairs": [[1, 0]]},
    ...                         {"sequences": [[8], [9]], "pairs": [[0, 1]]}])
    >>> batch["input_ids"].tolist(), batch["lengths"].tolist(), batch["pairs"].tolist()
    ([[5, 6, 7], [5, 6, 0], [8, 0, 0], [9, 0, 0]], [3, 2, 1, 1], [[1, 0], [2, 3]])

    Returns `input_ids` [N, T], `lengths` [N] and `pairs` [M, 2], which index the N sequences. What stands in the
    padding is never read: masks are made from lengths.
    """
    sequences = [torch.tensor(ids) for group in groups for ids in group["sequences"]]
    pairs, offset = [], 0
    for group in groups:
        pairs += [[offset + index for index in pair] for pair in group["pairs"]]
        offset += len(group["sequences"])
    return {
        "input_ids": torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
        "lengths": torch.tensor([len(ids) for ids in sequences]),
        "pairs": torch.tensor(pairs),
    }


class GroupedRewardTrainer(FiniteTrainer, RewardTrainer):
    """TRL's RewardTrainer on groups of comparisons (see `group_comparisons`) instead of single pairs.

    Departs from it in that a summary is encoded once for all comparisons it is in, and that the score is read at the
    last token by length: TRL looks for the last token that is not padding, which for GPT-2 skips the EOS.
    """

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset  # encoded already

    def _set_signature_columns_if_needed(self):
        self._signature_columns = ["sequences", "pairs"]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        rewards = pass_through(model, last_token_scores, inputs["input_ids"], inputs["lengths"])
        chosen, rejected = rewards[inputs["pairs"]].unbind(1)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        mode = "train" if self.model.training else "eval"
        accuracy = self.accelerator.gather((chosen > rejected).float().mean())  # of each process's micro-batch
        self._metrics[mode]["accuracy"].append(accuracy.mean().item())
        return (loss, {"rewards": rewards}) if return_outputs else loss


def last_token_scores(model, input_ids: Tensor, lengths: Tensor) -> Tensor:
    """Scores [N] of a decoder reward model at the last token of right-padded `input_ids` [N, T]; lengths [N]."""
    mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
    hidden = model.base_model(input_ids=input_ids, attention_mask=mask.long(), use_cache=False)[
        0
    ]  # [N, T, width]
    last = hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1]  # [N, width]
    return model.score(last).squeeze(-1).float()


def train_reward_model(
    model,
    tokenizer,
    train: list[dict],
    validation: list[dict],
    params: "Params",
    folder: Path,
    on_row: OnRow | None = None,
) -> list[dict]:
    """Train `model` (one label, on the policy's trunk) in place on rows of `prompt`, `chosen`, `rejected`.

    Args:
        folder: for resume points.
        on_row: called with the history so far after each logged row.

    Returns:
        the history, a row a logged step: step, train_loss, eval_loss (nats a comparison), eval_accuracy.

    Raises:
        TrainingError: a loss, a gradient or the weights are no longer finite.
    """

    def encoded(rows: list[dict]) -> list[dict]:
        return [encode_group(tokenizer, group) for group in group_comparisons(rows)]

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
