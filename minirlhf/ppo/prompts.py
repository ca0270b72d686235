"""The prompts of a run, and which of them an episode begins with."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minirlhf.runtime.errors import UserError
from minirlhf.sampling.draw import episode_seeds
from minirlhf.text.chat import ChatPrompt, end_with_turn, is_chat, render
from minirlhf.text.prompts import decode, encode_prompts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    PromptsLike = Dataset | Sequence[str | Sequence[int] | Sequence[dict]]


class Prompts:
    """n prompts as texts and as ids, and the `tokenizer` of what answers them: in a chat an answer ends with its turn.

    Args:
        prompts: texts, chats (lists of messages {"role", "content"}), lists of ids, or a `datasets.Dataset` with a
            column `prompt` of either. Texts are encoded as they are, after the BOS that the tokenizer begins every text
            with, if it does; chats as its chat template writes them; ids are taken as they are.

    Raises:
        UserError: no prompts, an empty prompt, a chat and no chat template, or a data set without the column.
    """

    def __init__(self, prompts: "PromptsLike", tokenizer: "PreTrainedTokenizerBase"):
        given: Any = prompts  # `datasets` takes long to import: a Dataset is known by what it has
        if hasattr(given, "column_names"):
            if "prompt" not in given.column_names:
                raise UserError(f"prompts: the data set has columns {given.column_names}, none named 'prompt'")
            given = given["prompt"]
        rows = [_read(row, index, tokenizer) for index, row in enumerate(given)]
        if not rows:
            raise UserError("prompts: there are none")
        texts = [row for row in rows if isinstance(row, str)]
        encoded = iter(encode_prompts(tokenizer, texts))
        self.ids: list[list[int]] = [next(encoded) if isinstance(row, str) else row for row in rows]
        empty = [index for index, ids in enumerate(self.ids) if not ids]
        if empty:
            raise UserError(f"prompts: prompt {empty[0]} is empty")
        self.texts: list[str] = [row if isinstance(row, str) else decode(tokenizer, row) for row in rows]
        has_chats = any(isinstance(text, ChatPrompt) for text in self.texts)
        self.tokenizer = end_with_turn(copy.deepcopy(tokenizer)) if has_chats else tokenizer

    def check_ids(self, embeddings: int) -> None:
        """Raise UserError for a prompt with an id that the policy has no embedding for."""
        for index, ids in enumerate(self.ids):
            if not 0 <= min(ids) <= max(ids) < embeddings:
                raise UserError(f"prompts: prompt {index} holds ids beyond the policy's {embeddings} embeddings")

    def __len__(self) -> int:
        return len(self.ids)


def _read(row: str | Sequence, index: int, tokenizer: "PreTrainedTokenizerBase") -> str | list[int]:
    """A prompt as a text, of a chat a `ChatPrompt`, or as ids."""
    if isinstance(row, str):
        return row
    row = list(row)
    if row and isinstance(row[0], dict):
        if not is_chat(row):
            raise UserError(f"prompts: prompt {index}: a message has a role and a content, both texts")
        try:
            return render(tokenizer, row)
        except UserError as error:
            raise UserError(f"prompts: prompt {index} is a chat, and {error}") from error
    return row


def episode_prompts(count: int, seed: int, start: int, episodes: int, samples: int = 1) -> list[int]:
    """Which of `count` prompts the episodes `start .. start + episodes - 1` begin with: `samples` in a row with one.

    All prompts in a random order, then all of them in another: a function of the seed and the episode's number alone,
    so a resumed run goes on where it was.
    """
    orders: dict[int, Sequence[int]] = {}
    chosen = []
    for episode in range(start, start + episodes):
        epoch, position = divmod(episode // samples, count)
        if epoch not in orders:
            orders[epoch] = random_order(count, seed, "prompts", epoch)
        chosen.append(int(orders[epoch][position]))
    return chosen


def random_order(count: int, *key: int | str) -> Sequence[int]:
    """A permutation of range(count) that is a function of the key alone."""
    seed = episode_seeds(":".join(map(str, key)), 0, 1)[0]
    return np.random.Generator(np.random.Philox(key=seed)).permutation(count).tolist()
