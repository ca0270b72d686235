"""The errors here are real ones: an allocator is asked for petabytes."""

import pytest
import torch

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.memory import BatchSize, explained

PETABYTES = 2**52


def rows_that_fit(rows: int, limit: int) -> None:
    """Allocate what no machine has where there are more rows than the limit."""
    if rows > limit:
        torch.empty(PETABYTES, dtype=torch.uint8)


def test_the_size_halves_until_the_work_fits_and_stays(capsys):
    size, tried = BatchSize(11, "ppo: micro_batch_size", "less"), []

    def work(rows):
        tried.append(rows)
        rows_that_fit(rows, limit=3)
        return "done"

    assert size.retry(work) == "done" and size.retry(work) == "done"
    assert tried == [11, 5, 2, 2]
    assert capsys.readouterr().err.splitlines() == [
        "ppo: micro_batch_size: out of memory at 11; going on with 5",
        "ppo: micro_batch_size: out of memory at 5; going on with 2",
    ]


def test_what_a_failed_attempt_allocated_is_free_before_the_next():
    size, alive = BatchSize(2, "batch_size", "less"), []

    class Tensors:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            freed.append(True)

    freed = []

    def work(rows):
        held = Tensors()
        alive.clear()
        held.cycle = held  # as autograd's graphs may have
        rows_that_fit(rows, limit=1)
        return len(freed)

    assert size.retry(work) == 1


def test_groups_go_on_where_memory_ran_out():
    size, groups = BatchSize(4, "batch_size", "less"), []

    def work(items):
        rows_that_fit(len(items), limit=4 if items[0] < 4 else 2)
        groups.append(items)

    size.each(range(9), work)
    assert [list(group) for group in groups] == [[0, 1, 2, 3], [4, 5], [6, 7], [8]]
    groups.clear()
    BatchSize(4, "batch_size", "less").each(range(3), work, lambda size, _: size // 3)
    assert [list(group) for group in groups] == [[0], [1], [2]]


def test_at_size_1_a_user_is_told_what_to_try():
    with pytest.raises(UserError, match="ppo: micro_batch_size is 1 and memory still runs out; try bf16") as caught:
        BatchSize(2, "ppo: micro_batch_size", "bf16").retry(lambda rows: rows_that_fit(rows, limit=0))
    assert "\n" not in str(caught.value)


def test_other_errors_are_no_lack_of_memory():
    def work(rows):
        return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"):
        BatchSize(2, "batch_size", "less").retry(work)
    with pytest.raises(RuntimeError, match="size"), explained("out of memory"):
        work(1)
    with pytest.raises(UserError, match="^try this$"), explained("try this"):
        rows_that_fit(1, limit=0)


def test_an_error_of_a_gpu_counts_too():
    def work(rows):
        if rows > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return rows

    assert BatchSize(2, "batch_size", "less").retry(work) == 1
