"""Where a training stage stands: its curves, written while it runs, where DVC looks for its results.

A stage writes the same file once more at its end, so that watching changes no result.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minirlhf.runtime.files import write_csv
from minirlhf.runtime.trackers import Trackers

Row = dict[str, Any]
INTERVAL = 2.0  # seconds between two writings of the file


def live(curves: Path, trackers: Trackers) -> Callable[[list[Row]], None]:
    """A function that a trainer calls with its history so far, after each logged row.

    It writes the curves (CSV) at most every `INTERVAL` seconds, and tells the trackers each new figure.
    """
    written_at, seen = float("-inf"), 0
    told: set[tuple[int, str]] = set()

    def on_row(rows: list[Row]) -> None:
        nonlocal written_at, seen
        if time.monotonic() - written_at >= INTERVAL:
            write_csv(curves, rows)
            written_at = time.monotonic()
        for row in rows[max(seen - 1, 0) :] if trackers else ():  # the last one seen may have got more figures
            (_, step), *figures = row.items()  # the first column: step or update
            numbers = {name: value for name, value in figures if isinstance(value, (int, float))}
            new = {name: value for name, value in numbers.items() if (step, name) not in told}
            told.update((step, name) for name in new)
            if new:
                trackers.log(new, step)
        seen = len(rows)

    return on_row
