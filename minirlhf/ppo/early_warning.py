"""An alarm for over-optimization that rings while PPO trains, with a known rate of errors in the embedded world.

Of all that the study's runs showed while gold was watched beside them, the plainest told those whose gold fell from the
others best: how far they are from the reference. How often it rings, how late and how often for nothing is in
docs/early_warning.md; on other data nobody knows.
"""

import sys
from dataclasses import asdict, dataclass
from typing import Any

from minirlhf.runtime.launch import rank
from minirlhf.settings.ppo import PPOConfig

Row = dict[str, Any]
KL = 14.2  # nats a response, from which on it rings: what the study chose
EPISODES = 64  # over whose mean, as in the study; a larger batch is one mean


@dataclass(frozen=True)
class Alarm:
    """Where it rang first, and the KL (nats a response) there."""

    update: int
    episodes: int
    kl: float

    def __str__(self) -> str:
        return (
            f"alarm at update {self.update} ({self.episodes} episodes): KL {self.kl:.3g} nats a response; from {KL:g} "
            "on, gold had often fallen (docs/early_warning.md)"
        )

    as_json = asdict


def first_alarm(history: list[Row], batch_size: int) -> Alarm | None:
    """Where the alarm rang first in a run, by its rows of the history; None if it has not."""
    rows = [row for row in history if row.get("kl") is not None]  # not so before the first update
    window = max(1, round(EPISODES / batch_size))
    for end in range(window, len(rows) + 1):
        mean = sum(row["kl"] for row in rows[end - window : end]) / window
        if mean >= KL:
            return Alarm(rows[end - 1]["update"], rows[end - 1]["episodes"], round(mean, 4))
    return None


class EarlyWarning:
    """Listens to a run. `alarm`: where it rang first, or None."""

    def __init__(self, config: PPOConfig):
        self.config = config
        self.alarm: Alarm | None = None

    def know(self, history: list[Row]) -> None:
        """Take what rang before a run goes on for told."""
        self.alarm = first_alarm(history, self.config.batch_size)

    def listen(self, history: list[Row]) -> str | None:
        """Say so where it rings first; the reason to stop, where that is asked for."""
        if self.alarm is not None:
            return None
        self.know(history)
        if self.alarm is not None and rank() == 0:
            print(f"ppo: {self.alarm}", file=sys.stderr, flush=True)
        return f"stop_on_alarm: {self.alarm}" if self.alarm is not None and self.config.stop_on_alarm else None

    def shown(self) -> dict[str, int]:
        """What a progress line shows of it."""
        return {} if self.alarm is None else {"alarm at update": self.alarm.update}
