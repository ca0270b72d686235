"""DPO: TRL's DPOTrainer on comparisons that are encoded as everywhere here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from minirlhf.text.prompts import encode, encode_prompts
from minirlhf.training.loop import run_arguments

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from minirlhf.settings.params import Params

# TRL's name of a figure -> its column in details/ppo.csv. DPO samples nothing while it trains: no reward, KL or length.
COLUMNS = {
    "loss": "policy_loss",
    "rewards/margins": "margin",  # beta x (log ratio of the chosen - log ratio of the rejected), a mean
    "rewards/accuracies": "accuracy",  # share of comparisons with a margin above 0
    "grad_norm": "policy_grad_norm",
    "learning_rate": "learning_rate",
}


def encode_comparison(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any]) -> dict[str, list[int]]:
    """Token ids of a prompt and of both its summaries, with EOS exactly where a summary ended by itself."""
    ids = {"prompt_ids": encode_prompts(tokenizer, [row["prompt"]])[0]}
    for side in ("chosen", "rejected"):
        ids[f"{side}_ids"] = encode(tokenizer, row[side]) + [tokenizer.eos_token_id] * row.get(f"{side}_ended", True)
    return ids


class SummaryDPOTrainer(DPOTrainer):
    """TRL's DPOTrainer on encoded comparisons: it would encode prompt and summary as one text, and always end it."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def make_trainer(
    policy: "nn.Module",
    reference: "nn.Module",
    tokenizer: "PreTrainedTokenizerBase",
    comparisons: list[dict[str, Any]],
    params: "Params",
    folder: Path,
) -> DPOTrainer:
    """TRL's trainer on rows of `prompt`, `chosen`, `rejected` (and `chosen_ended`, `rejected_ended`)."""
    from datasets import Dataset

    config = DPOConfig(
        **run_arguments(params, params.dpo, folder),
        max_steps=params.dpo.updates,
        logging_steps=1,
        lr_scheduler_type="linear",
        beta=params.dpo.beta,
        max_length=None,
        disable_dropout=True,
    )
    return SummaryDPOTrainer(
        model=policy,
        ref_model=reference,
        args=config,
        train_dataset=Dataset.from_list([encode_comparison(tokenizer, row) for row in comparisons]),
        processing_class=tokenizer,
    )
