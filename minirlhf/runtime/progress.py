"""A progress bar for a terminal that becomes a line now and then where there is none (DVC, a log file)."""

import sys
import time
from typing import Self

from minirlhf.runtime.launch import rank


class Progress:
    """Progress over `total` units; a context manager. On a terminal tqdm draws it, on stderr in both cases.

    Elsewhere it prints at most one line every `interval` seconds:
        ppo: 640/3840 episodes, 21.3 episodes/s, 2:30 left, reward 0.84

    Of several processes the first one alone shows any.
    """

    def __init__(self, total: int, unit: str, desc: str, interval: float = 10.0):
        self.total, self.unit, self.desc, self.interval = total, unit, desc, interval
        self.done = 0
        self._resumed_at = 0
        self._started = self._printed = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and rank() == 0:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=f" {unit}", desc=desc, leave=False, file=sys.stderr)

    def start_at(self, done: int) -> None:
        """Begin at `done` units, made by an earlier run: they do not count in the rate."""
        self.done = self._resumed_at = done
        if self._bar is not None:
            self._bar.initial = self._bar.n = done
            self._bar.refresh()

    def update(self, count: int = 1, **figures: float) -> None:
        """`count` more units are done; `figures` (loss=0.3) are shown beside them."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix(figures, refresh=False)
            self._bar.update(count)
        elif rank() == 0 and time.monotonic() - self._printed >= self.interval:
            self._printed = time.monotonic()
            print(self._line(figures), file=sys.stderr, flush=True)

    def _line(self, figures: dict[str, float]) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._resumed_at) / seconds
        left = round((self.total - self.done) / rate) if rate else 0
        parts = [f"{self.desc}: {self.done}/{self.total} {self.unit}", f"{rate:.3g} {self.unit}/s"]
        parts.append(f"{left // 60}:{left % 60:02d} left")
        return ", ".join(parts + [f"{name} {value:.4g}" for name, value in figures.items()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
