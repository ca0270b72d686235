"""Supervised fine-tuning on posts and their authors' summaries with TRL's SFTTrainer; loss on the summary only."""

from typing import TYPE_CHECKING

from minirlhf.prompts import encode
from minirlhf.training import HistoryCallback, trainer_arguments

if TYPE_CHECKING:
    from minirlhf.params import Params


def encode_example(tokenizer, prompt: str, completion: str) -> dict[str, list[int]]:
    """Token ids of a post and its summary, which ends with EOS; labels hide (-100) the post.

    The two are encoded apart, as they are when a policy continues a prompt.
    """
    prompt_ids, completion_ids = encode(tokenizer, prompt), encode(tokenizer, completion)
    completion_ids.append(tokenizer.eos_token_id)
    return {
        "input_ids": prompt_ids + completion_ids,
        "labels": [-100] * len(prompt_ids) + completion_ids,
    }


def train_sft(
    model, tokenizer, train: list[dict], validation: list[dict], params: "Params", folder: str
) -> list[dict]:
    """Fine-tune `model` in place on rows of `prompt` and `completion`.

    Args:
        folder: where TRL may keep what it writes while it trains.

    Returns:
        the history, a row a logged step: step, train_loss and eval_loss (nats a summary token).
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def dataset(rows: list[dict]) -> Dataset:
        return Dataset.from_list(
            [encode_example(tokenizer, row["prompt"], row["completion"]) for row in rows]
        )

    history = HistoryCallback(
        params.sft.steps, desc="sft", names={"loss": "train_loss", "eval_loss": "eval_loss"}
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(max_length=None, **trainer_arguments(params, params.sft, folder)),
        train_dataset=dataset(train),
        eval_dataset=dataset(validation),
        processing_class=tokenizer,
        callbacks=[history],
    )
    history.attach(trainer)
    trainer.train()
    return history.rows
