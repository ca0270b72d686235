"""`minirlhf watch`: the last rows of the curves that a training stage writes while it runs."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv
from minirlhf.training.live import Row

STAGES = ("sft", "reward", "ppo")
EXPERIMENTS = ".dvc/tmp/exps"  # where DVC runs temporary and queued experiments
SHOWN = ("step", "episodes", "train_loss", "eval_loss", "eval_accuracy")  # columns of the table; then PPO's
SHOWN += ("reward", "eval_reward", "kl", "length", "entropy", "policy_loss", "value_loss")


def newest_curves(root: Path = Path()) -> Path:
    """The curves that were written last, also those of a temporary or queued experiment."""
    places = [root / "details", *(root / EXPERIMENTS).glob("**/details")]
    files = [place / f"{stage}.csv" for place in places for stage in STAGES]
    files = [file for file in files if file.exists()]
    if not files:
        raise UserError("no curves yet: details/sft.csv, reward.csv and ppo.csv appear while these stages run")
    return max(files, key=lambda file: file.stat().st_mtime)


def table(rows: list[Row], columns: Iterable[str] = SHOWN, last: int = 10) -> str:
    """The last rows, in aligned columns; a value that was not logged is left empty."""
    columns = [name for name in columns if any(row.get(name) is not None for row in rows)]
    lines = [columns] + [[_cell(row.get(name)) for name in columns] for row in rows[-last:]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def watch() -> None:
    """Print the newest curves as a table, with their file and age."""
    file = newest_curves()
    print(f"{file}, written {time.time() - file.stat().st_mtime:.0f} s ago")
    print(table(read_csv(file)))
