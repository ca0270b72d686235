"""The prompts of a run, and which of them an episode begins with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minirlhf.runtime.errors import UserError
from minirlhf.sampling.draw import episode_seeds
from minirlhf.text.prompts import decode, encode_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompts:
    """n prompts as texts and as ids.

    Args:
        prompts: texts, lists of ids, or a `datasets.Dataset` with a column `prompt` of either. Texts are encoded as
            they are, without special tokens: give ids where a model wants a BOS.

    Raises:
        UserError: no prompts, an empty prompt, or a data set without the column.
    """

    def __init__(self, prompts, tokenizer: "PreTrainedTokenizerBase"):
        if hasattr(prompts, "column_names"):
            if "prompt" not in prompts.column_names:
                raise UserError(f"prompts: the data set has columns {prompts.column_names}, none named 'prompt'")
            prompts = prompts["prompt"]
        rows = [row if isinstance(row, str) else list(row) for row in prompts]
        if not rows:
            raise UserError("prompts: there are none")
        texts = [row for row in rows if isinstance(row, str)]
        encoded = iter(encode_all(tokenizer, texts))
        self.ids: list[list[int]] = [next(encoded) if isinstance(row, str) else row for row in rows]
        empty = [index for index, ids in enumerate(self.ids) if not ids]
        if empty:
            raise UserError(f"prompts: prompt {empty[0]} is empty")
        self.texts: list[str] = [row if isinstance(row, str) else decode(tokenizer, row) for row in rows]

    def check_ids(self, embeddings: int) -> None:
        """Raise UserError for a prompt with an id that the policy has no embedding for."""
        for index, ids in enumerate(self.ids):
            if not 0 <= min(ids) <= max(ids) < embeddings:
                raise UserError(f"prompts: prompt {index} holds ids beyond the policy's {embeddings} embeddings")

    def __len__(self) -> int:
        return len(self.ids)


def episode_prompts(count: int, seed: int, start: int, episodes: int) -> list[int]:
    """Which of `count` prompts the episodes `start .. start + episodes - 1` begin with.

    All prompts in a random order, then all of them in another: a function of the seed and the episode's number alone,
    so a resumed run goes on where it was.
    """
    orders: dict[int, Sequence[int]] = {}
    chosen = []
    for episode in range(start, start + episodes):
        epoch, position = divmod(episode, count)
        if epoch not in orders:
            orders[epoch] = random_order(count, seed, "prompts", epoch)
        chosen.append(int(orders[epoch][position]))
    return chosen


def random_order(count: int, *key: int | str) -> Sequence[int]:
    """A permutation of range(count) that is a function of the key alone."""
    seed = episode_seeds(":".join(map(str, key)), 0, 1)[0]
    return np.random.Generator(np.random.Philox(key=seed)).permutation(count).tolist()
