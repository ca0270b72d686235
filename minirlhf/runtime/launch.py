"""The processes of one stage, as the launcher in front of its command tells them: torchrun, or accelerate launch.

No torch here: this is what params, resume points and error lines need to know before a model loads. What the processes
do together is in minirlhf/runtime/processes.py.
"""

import os
import re

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
