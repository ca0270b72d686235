"""Where a training stage stands: its curves and metrics, written while it runs, where DVC looks for its results.

A stage writes the same files once more at its end, so that watching changes no result.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_csv, write_json
from minirlhf.runtime.launch import rank
from minirlhf.settings.params import Params

Row = dict[str, Any]
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
