"""Rounds of feedback: comparisons of what aligned policies write, each after those before it (docs/rounds.md)."""

import shutil
from pathlib import Path

from minirlhf.runtime.files import numbered_folders

COLLECTED, ROUNDS = Path("data/collected"), Path("data/feedback")
OF_ROUNDS = (ROUNDS, Path("models/rounds"), Path("details/rounds"))  # a folder a round in each


def newest_round() -> Path:
    """The folder of all comparisons of what policies wrote: the last round's, or the first's where there is no other.

    What is there decides, not the params, since DVC reruns what reads these folders when their content changes.
    """
    rounds = numbered_folders(ROUNDS)
    return rounds[max(rounds)] if rounds else COLLECTED


def drop_rounds(kept: int) -> None:
    """Remove the folders of rounds that the params do not name any more: DVC leaves them, and has them in its cache."""
    for parent in OF_ROUNDS:
        for number, folder in numbered_folders(parent).items():
            if number >= kept and folder.name == str(number):
                shutil.rmtree(folder)
