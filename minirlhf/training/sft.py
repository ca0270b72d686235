"""Supervised fine-tuning on posts and their authors' summaries with TRL's SFTTrainer; loss on the summary only."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from minirlhf.models.passes import passes
from minirlhf.models.trunk import TrunkAndHead, at_least_float32
from minirlhf.text.prompts import encode, encode_prompts
from minirlhf.training.guards import FiniteTrainer, HalvingTrainer
from minirlhf.training.loop import OnRow, fit, pass_through

if TYPE_CHECKING:
    from minirlhf.settings.params import Params


def encode_example(tokenizer, prompt: str, completion: str) -> dict[str, list[int]]:
    """Token ids of a post and its summary, which ends with EOS; labels hide (-100) the post.

    The two are encoded apart, as they are when a policy continues a prompt.
    """
    [prompt_ids], completion_ids = encode_prompts(tokenizer, [prompt]), encode(tokenizer, completion)
    completion_ids.append(tokenizer.eos_token_id)
    return {
        "input_ids": prompt_ids + completion_ids,
        "labels": [-100] * len(prompt_ids) + completion_ids,
    }


class SummaryTrainer(FiniteTrainer, HalvingTrainer, SFTTrainer):
    """TRL's SFTTrainer with the vocabulary head on the summaries' positions only, on a CPU too.

    The loss is the same. Without a GPU's kernels TRL takes the head, and its gradient, of the posts' positions as well,
    which have no label: with GPT-2's vocabulary, and posts ten times as long as summaries, that is most of the work.
    """

    stage = "sft"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._parts = TrunkAndHead(self.model)
        self.model_accepts_loss_kwargs = True  # `compute_loss` takes the number of labels of the whole step

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if inputs["labels"].is_cuda:  # TRL does so itself
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        order = inputs["attention_mask"].sum(1).argsort(descending=True, stable=True)
        ids, mask, labels = (inputs[name][order] for name in ("input_ids", "attention_mask", "labels"))
        labels = labels[:, 1:]  # [B, T - 1]: what the position before predicts
        labelled = labels != -100
        with self.accelerator.autocast():  # accelerate's own is around the model's `forward`, which is not called
            logits = pass_through(model, self._logits_at, ids, mask, labelled)
        loss = torch.nn.functional.cross_entropy(at_least_float32(logits), labels[labelled], reduction="sum")
        if num_items_in_batch is None:
            loss = loss / labelled.sum()
        else:  # the labels of a whole step, in all processes, whose gradients are averaged
            loss = loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"logits": logits}) if return_outputs else loss

    def parts(self, inputs, number):
        """Rows apart: each loss is over the labels of the whole optimizer step, so they add up."""
        pieces = zip(*(tensor.chunk(number) for tensor in inputs.values()), strict=True)
        return [dict(zip(inputs, piece, strict=True)) for piece in pieces]

    def _logits_at(self, _, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Logits [N, V] at the N positions that are `wanted` [B, T - 1], of `input_ids` [B, T], longest first."""
        lengths = attention_mask.sum(1).tolist()
        states = []
        for rows in passes(range(len(lengths)), lengths, input_ids.device.type):
            width = lengths[rows[0]]
            hidden = self._parts.hidden(input_ids[rows, :width], attention_mask[rows, :width], use_cache=False)
            states.append(hidden[:, :-1][wanted[rows, : width - 1]])
        return self._parts.logits(torch.cat(states))


def train_sft(
    model,
    tokenizer,
    train: list[dict],
    validation: list[dict],
    params: "Params",
    folder: Path,
    on_row: OnRow | None = None,
) -> list[dict]:
    """Fine-tune `model` in place on rows of `prompt` and `completion`.

    Args:
        folder: for resume points.
        on_row: called with the history so far after each logged row.

    Returns:
        the history, a row a logged step: step, train_loss and eval_loss (nats a summary token).

    Raises:
        TrainingError: a loss, a gradient or the weights are no longer finite.
    """

    def encoded(rows: list[dict]) -> list[dict]:
        return [encode_example(tokenizer, row["prompt"], row["completion"]) for row in rows]

    return fit(
        SummaryTrainer,
        SFTConfig,
        model,
        tokenizer,
        encoded(train),
        encoded(validation),
        params=params,
        stage="sft",
        columns={"loss": "train_loss", "eval_loss": "eval_loss"},
        folder=folder,
        on_row=on_row,
    )
