"""A run does not grow: neither in memory nor in its folder, but for a line of history an update."""

import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from minirlhf.ppo import PPOConfig, PPOTrainer
from tests.conftest import SOAK
from tests.ppo.conftest import count_w7, make_policy

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
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


def run(tokenizer, prompts, critic, updates, look, folder=None):
    config = PPOConfig(
        episodes=8 * updates, batch_size=8, ppo_epochs=1, max_new_tokens=6, critic=critic, learning_rate=1e-5
    )
    options = {"folder": folder, "resume_minutes": 0, "device": "cpu", "callbacks": [look]}
    trainer = PPOTrainer(config, make_policy(), tokenizer, count_w7, prompts, **options)
    trainer.train()


def memory_by_update(tokenizer, prompts, critic, updates):
    memory = []
    run(tokenizer, prompts, critic, updates, lambda row: memory.append(resident()))
    return memory


@pytest.mark.parametrize("critic", ["shared", "separate"] if SOAK else ["separate"])
def test_no_tensor_and_no_file_is_kept_from_update_to_update(tokenizer, prompts, tmp_path, critic):
    seen = []

    def look(row):
        if row["update"] in (20, 40):
            seen.append((tensors(), sorted(path.name for path in tmp_path.rglob("*"))))

    run(tokenizer, prompts, critic, 40, look, folder=tmp_path)
    assert seen[0] == seen[1]
    assert len(seen[0][1]) < 10


@pytest.mark.skipif(not SOAK, reason="make soak: over few updates the allocator's noise is larger than a leak")
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_memory_is_flat_over_300_updates(tokenizer, prompts, critic):
    """But for the rows of the history, of 1 KiB each; in a process that has done nothing before.

    oneDNN keeps a kernel for each shape that it meets, up to 1,024 of them. By 1,500 updates it has met most.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        memory = fresh.submit(memory_by_update, tokenizer, prompts, critic, 1800).result()
    assert len(memory) == 1800 and slope(memory[1500:]) < 4096
