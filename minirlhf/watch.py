"""Where a training stage stands: its curves and metrics, written while it runs, where DVC looks for its results.

A stage writes the same files once more at its end, so that watching changes no result.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirlhf.errors import UserError
from minirlhf.files import read_csv, write_csv, write_json
from minirlhf.launch import rank

if TYPE_CHECKING:
    from minirlhf.params import Params

Row = dict[str, Any]
STAGES = ("sft", "reward", "ppo")
EXPERIMENTS = ".dvc/tmp/exps"  # where DVC runs temporary and queued experiments
SHOWN = ("step", "episodes", "train_loss", "eval_loss", "eval_accuracy")  # columns of the table; then PPO's
SHOWN += ("reward", "eval_reward", "kl", "length", "entropy", "policy_loss", "value_loss")
INTERVAL = 2.0  # seconds between two writings of the files


def live(stage: str, curves: Path, metrics: Path, params: "Params") -> Callable[[list[Row]], None]:
    """A function that a trainer calls with its history so far, after each logged row.

    It writes the curves (CSV) and the last value of each column (JSON, keys `STAGE_COLUMN`), at most every `INTERVAL`
    seconds, and with `tensorboard: true` each new row for TensorBoard.

    Raises:
        UserError: TensorBoard is asked for and is not installed.
    """
    tell = tensorboard_writer(stage) if params.tensorboard and rank() == 0 else None
    written_at, told = float("-inf"), 0

    def on_row(rows: list[Row]) -> None:
        nonlocal written_at, told
        if time.monotonic() - written_at >= INTERVAL:
            write_csv(curves, rows)
            write_json(metrics, last_values(stage, rows))
            written_at = time.monotonic()
        if tell is not None:
            for row in rows[max(told - 1, 0) :]:  # the last one told may have got more figures
                tell(row)
            told = len(rows)

    return on_row


def last_values(stage: str, rows: list[Row]) -> dict[str, Any]:
    """The last value of each column that has one.

    >>> last_values("sft", [{"step": 1, "eval_loss": 0.5}, {"step": 2, "eval_loss": None}])
    {'sft_step': 2, 'sft_eval_loss': 0.5}
    """
    return {f"{stage}_{name}": value for row in rows for name, value in row.items() if value is not None}


def tensorboard_writer(stage: str) -> Callable[[Row], None]:
    """A function that writes the numbers of a row to `runs/STAGE` of the repository that DVC was started in."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard: true needs the package: pip install tensorboard (or set it to false)") from error
    root = Path(os.environ.get("DVC_ROOT", ""))
    writer = SummaryWriter(root / "runs" / stage / time.strftime("%Y%m%d-%H%M%S"))
    told: set[tuple[int, str]] = set()

    def tell(row: Row) -> None:
        step = next(iter(row.values()))  # the first column: step or update
        for name, value in row.items():
            if isinstance(value, (int, float)) and (step, name) not in told:
                writer.add_scalar(f"{stage}/{name}", value, step)
                told.add((step, name))
        writer.flush()

    return tell


def newest_curves(root: Path = Path()) -> Path:
    """The curves that were written last, also those of a temporary or queued experiment."""
    places = [root / "plots", *(root / EXPERIMENTS).glob("**/plots")]
    files = [place / f"{stage}.csv" for place in places for stage in STAGES]
    files = [file for file in files if file.exists()]
    if not files:
        raise UserError("no curves yet: plots/sft.csv, reward.csv and ppo.csv appear while these stages run")
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
