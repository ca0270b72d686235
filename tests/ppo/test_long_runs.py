"""A run does not grow: neither in memory nor in its folder, but for a line of history an update."""

import gc
import os
from pathlib import Path

import pytest
import torch

from minirlhf.ppo import PPOConfig, PPOTrainer
from tests.conftest import SOAK
from tests.ppo.conftest import count_w7, make_policy

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors() -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))


def slope(values: list[float]) -> float:
    """Of the least-squares line, a step.

    >>> slope([1.0, 3.0, 5.0])
    2.0
    """
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    steps = [index - middle for index in range(len(values))]
    return sum(step * (value - mean) for step, value in zip(steps, values, strict=True)) / sum(s * s for s in steps)


@pytest.mark.parametrize("critic", ["shared", "separate"] if SOAK else ["separate"])
def test_a_long_run_does_not_grow(tokenizer, prompts, tmp_path, critic):
    updates, seen, memory = 300 if SOAK else 40, [], []

    def look(row):
        if row["update"] % 10 == 0:
            memory.append(resident())
        if row["update"] in (updates // 2, updates):
            seen.append((tensors(), sorted(path.name for path in tmp_path.rglob("*"))))

    config = PPOConfig(
        episodes=8 * updates, batch_size=8, ppo_epochs=1, max_new_tokens=6, critic=critic, save_every=5,
        snapshot_every=updates + 1, learning_rate=1e-5,
    )  # fmt: skip
    trainer = PPOTrainer(
        config, make_policy(), tokenizer, count_w7, prompts, folder=tmp_path, device="cpu", callbacks=[look]
    )
    trainer.train()
    assert seen[0] == seen[1], "tensors or files are kept from update to update"
    assert len(seen[0][1]) < 10
    if SOAK:  # over few updates the allocator's noise is larger than any leak would be
        later = memory[len(memory) // 3 :]
        assert slope(later) / 10 < 4096, "more than a page an update"
