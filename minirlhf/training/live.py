"""Where a training stage stands: its curves, written while it runs, where DVC looks for its results.

A stage writes the same file once more at its end, so that watching changes no result.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_csv
from minirlhf.runtime.launch import rank
from minirlhf.settings.params import Params

Row = dict[str, Any]
INTERVAL = 2.0  # seconds between two writings of the file


def live(stage: str, curves: Path, params: "Params") -> Callable[[list[Row]], None]:
    """A function that a trainer calls with its history so far, after each logged row.

    It writes the curves (CSV) at most every `INTERVAL` seconds, and with `tensorboard: true` each new row for
    TensorBoard.

    Raises:
        UserError: TensorBoard is asked for and is not installed.
    """
    tell = tensorboard_writer(stage) if params.tensorboard and rank() == 0 else None
    written_at, told = float("-inf"), 0

    def on_row(rows: list[Row]) -> None:
        nonlocal written_at, told
        if time.monotonic() - written_at >= INTERVAL:
            write_csv(curves, rows)
            written_at = time.monotonic()
        if tell is not None:
            for row in rows[max(told - 1, 0) :]:  # the last one told may have got more figures
                tell(row)
            told = len(rows)

    return on_row


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
