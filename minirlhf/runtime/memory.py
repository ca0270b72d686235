"""What to do when memory runs out: halve the batch and go on, or say what to change."""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from minirlhf.runtime.errors import UserError, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def explained(message: str) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a UserError with this message."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(message) from None


class BatchSize:
    """The most rows in one pass. It halves when memory runs out, and stays halved.

    For work whose result does not depend on how its rows are split. Each process halves its own, so the work must hold
    no collective call: the processes would no longer meet in the same one.

    Args:
        size: to begin with.
        name: what the user knows it by, as "ppo: micro_batch_size".
        advice: what to try when even one row is too much.
    """

    def __init__(self, size: int, name: str, advice: str):
        self.size, self.name, self.advice = size, name, advice

    def retry(self, work: Callable[[int], Result]) -> Result:
        """`work(size)`; where memory runs out, once more from the start with half the size.

        Raises UserError if memory runs out at size 1.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.size == 1:
                    raise UserError(f"{self.name} is 1 and memory still runs out; try {self.advice}") from None
            # Only out here, where no traceback holds them any more, are the tensors of the failed attempt free.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(f"{self.name}: out of memory at {self.size}; going on with {self.size // 2}", file=sys.stderr)
            self.size //= 2

    def each(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], None],
        count: Callable[[int, Item], int] = lambda size, item: size,
    ) -> None:
        """`work` on groups of the items, in order, until all are done.

        `count(size, item)` is how many items, from this one on, make up a pass of `size` rows; at least one is taken.
        """
        done = 0

        def group(size: int) -> int:
            chosen = items[done : done + max(1, count(size, items[done]))]
            work(chosen)
            return len(chosen)

        while done < len(items):
            done += self.retry(group)
