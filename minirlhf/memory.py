"""What to do when memory runs out: halve the batch and go on, or say what to change."""

import contextlib
import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from minirlhf.errors import UserError, is_out_of_memory

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


class HalvingTrainer:
    """Mixed into a transformers Trainer: splits its micro-batches where memory runs out, the rest of the run.

    The gradient of the optimizer step is begun anew, with the micro-batches that went well before, since a backward
    pass may have failed half-way: nothing counts twice, and no second copy of the gradient is kept for the case. Not
    with several processes, whose backward passes meet.

    Subclasses say which `stage` they are, as the params call it, and provide `parts(inputs, number)`: a micro-batch as
    that many smaller ones, or fewer if it has no more, whose losses (`compute_loss`) sum up to its own.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        advice = "gradient_checkpointing, precision bf16 or shorter posts"
        self._size = BatchSize(self.args.per_device_train_batch_size, f"{self.stage}: micro_batch_size", advice)
        self._of_this_step: list[dict] = []  # the micro-batches that its gradient holds

    def training_step(self, model, inputs, *args, **kwargs) -> torch.Tensor:
        if self.accelerator.num_processes > 1 or self.args.n_gpu > 1:
            return super().training_step(model, inputs, *args, **kwargs)
        training_step = super().training_step
        before = self._size.size
        self._of_this_step.append(inputs)

        def add_gradient(size: int) -> torch.Tensor:
            whole = self.args.per_device_train_batch_size
            if size < before:  # an attempt failed
                model.zero_grad()
            for inputs in self._of_this_step if size < before else self._of_this_step[-1:]:
                parts = [inputs] if size == whole else self.parts(inputs, math.ceil(whole / size))
                loss = sum(training_step(model, part, *args, **kwargs) for part in parts)
            return loss

        loss = self._size.retry(add_gradient)
        if self.accelerator.sync_gradients:  # the last micro-batch of the step
            self._of_this_step.clear()
        return loss


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
