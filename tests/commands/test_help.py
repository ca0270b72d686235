"""`--help` of every script and command: at once, without the libraries that take seconds to load."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("source", "prepare", "sft", "collect", "reward", "ppo", "evaluate", "report")
STAGES = [[f"stages/{name}.py"] for name in NAMES]
COMMANDS = (
    "profile",
    "plan",
    "summarize",
    "seeds",
    "label",
    "examine",
    "watch",
    "follow",
    "push",
    "export",
    "reproduce",
    "bench",
)
HEAVY = {"torch", "transformers", "datasets", "trl", "matplotlib"}
SECONDS = 2.0  # of the processor: another program may be running beside the test


@pytest.mark.parametrize("command", [*STAGES, ["-m", "minirlhf"], *(["-m", "minirlhf", name] for name in COMMANDS)],
                         ids=lambda command: command[-1])  # fmt: skip
def test_help_is_quick_and_loads_nothing_heavy(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-X", "importtime", *command, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith("usage:")
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported and not imported & HEAVY
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def test_the_help_of_the_command_names_every_command():
    done = subprocess.run([sys.executable, "-m", "minirlhf", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert re.findall(r"^ {4}(\w+)", done.stdout, re.MULTILINE) == list(COMMANDS)
