"""The parts of `minirlhf bench`: each a process of its own with a deadline, and a file of what they found."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_object, write_json

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks" / "bench"
DONE = "done"
Report = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: what people call it.
        python, script: what runs, of benchmarks/bench.
        arguments: what the script is told.
        labels: what a row of the table says of it, as its work and trainer.
    """

    name: str
    python: str
    script: str
    arguments: tuple[str, ...]
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Report:
        """What it is known by in the file."""
        return {"part": self.name, "arguments": list(self.arguments), **self.labels}


def run_part(command: Sequence[str], seconds: float) -> Report:
    """The last line of JSON that a command prints, and as "ended" why it ended: done, its deadline, or what it said."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    try:
        process = subprocess.Popen(command, env=environment, text=True, preexec_fn=_end_with_parent, **pipes)
    except OSError as error:
        return {"ended": f"cannot be run: {error}"}
    try:
        said, complaint = process.communicate(timeout=seconds)
        ended = DONE if process.returncode == 0 else _complaint(complaint, process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        ended = f"deadline of {seconds:.0f} s"
    reports = [line for line in said.splitlines() if line.startswith("{") and line.endswith("}")]
    return (json.loads(reports[-1]) if reports else {}) | {"ended": ended}


def _end_with_parent() -> None:
    """In the new process: end when the command is gone, which may itself be killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _complaint(text: str, code: int) -> str:
    """The last line of what was said on standard error that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"ended by signal {-code}" if code < 0 else f"exit code {code}"


class Results:
    """What was found, in a file after each part.

    Args:
        file: JSON, replaced.
        resume: parts that are done in the file, on the same machine, are not run again.

    Attributes:
        seconds: the deadline of a part.
        minutes: of all together: the last ones get what is left.
        parts: the reports so far.
    """

    def __init__(self, file: Path, resume: bool):
        if resume and not file.exists():
            raise UserError(f"bench: --resume: {file} is not there")
        self.file, self.began, self.seconds, self.minutes = file, time.monotonic(), 300.0, 60.0
        self.before: list[Report] = read_object(file).get("parts", []) if resume else []
        self.parts: list[Report] = []

    def run(self, part: Part, where: str = "", again: bool = False) -> Report:
        """The report of a part: run now, or, unless `again`, as it is in the file."""
        kept = None if again else next(filter(lambda found: self._is(part, found), self.before), None)
        left = min(self.seconds, 60 * self.minutes - (time.monotonic() - self.began))
        if kept is not None:
            report, how = kept, "kept"
        elif left < 1:
            report, how = {"ended": "no time left"}, "no time left"
        else:
            print(f"bench: {where}{part.name}, at most {left:.0f} s", file=sys.stderr, flush=True)
            began = time.monotonic()
            report = run_part([part.python, str(SCRIPTS / part.script), *part.arguments], left)
            how = f"{report['ended']}, {time.monotonic() - began:.0f} s"
        print(f"bench: {where}{part.name}: {how}", file=sys.stderr, flush=True)
        self.parts.append(part.key | report)
        later = [found for found in self.before if all(found.get("part") != each["part"] for each in self.parts)]
        write_json(self.file, {"parts": self.parts + later})
        return self.parts[-1]

    @staticmethod
    def _is(part: Part, found: Report) -> bool:
        return found.get("ended") == DONE and all(found.get(name) == value for name, value in part.key.items())
