"""The processes of one stage, as the launcher in front of its command tells them: torchrun, or accelerate launch.

No torch here: this is what params, resume points and error lines need to know before a model loads. What the processes
do together is in minirlhf/training.py (sft, reward) and minirlhf/ppo/processes.py.
"""

import os
import re
from typing import TYPE_CHECKING

from minirlhf.errors import UserError

if TYPE_CHECKING:
    from minirlhf.params import TrainParams

# A shell reads the command: nothing that is more to it than a word or a space.
COMMAND = re.compile(r"python|(torchrun|accelerate launch)( [A-Za-z0-9_./:=,+-]+)*")


def check_command(command: str) -> str:
    """The command, if it may stand in front of a stage's script. ValueError for any other."""
    if not COMMAND.fullmatch(command):
        raise ValueError(
            "expected python, or torchrun or accelerate launch with options (words of letters, digits and _./:=,+-, "
            f"one space between them), got {command[:60]!r}"
        )
    return command


def rank() -> int:
    """The number of this process among those of its run; 0 is the one that writes files and speaks."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def accumulation_steps(stage: str, section: "TrainParams") -> int:
    """Micro-batches that each process takes for one optimizer step, so that all of them together are `batch_size`.

    Raises:
        UserError: that is no whole number.
    """
    together = section.micro_batch_size * world_size()
    if section.batch_size % together:
        raise UserError(
            f"{stage}.batch_size: {section.batch_size} is no multiple of micro_batch_size x processes "
            f"({section.micro_batch_size} x {world_size()} = {together})"
        )
    return section.batch_size // together
