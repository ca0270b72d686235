"""Where a killed stage finds its way back: a folder outside DVC's outputs, named after all that the result depends on.

DVC deletes a stage's outputs before it runs, so what a stage wants to find again after a kill stays in
`.resume/STAGE/FINGERPRINT/` of the repository that DVC was started in (also of a temporary or queued experiment).
Another setting, input, line of code, version of PyTorch or number of processes gives another fingerprint, and so never
goes on from an old state; going back to the old setting does. Of one stage the newest `KEPT` states stay.

A lock, which dies with its process, keeps two processes from one folder; others run side by side.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minirlhf.runtime import unchanged
from minirlhf.runtime.arithmetic import description
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import writing
from minirlhf.runtime.launch import rank, world_size

KEPT = 3
LIBRARIES = ("torch", "transformers", "trl")  # another version may give other bytes, or read its state otherwise

_last_point: str | None = None


def fingerprint(settings: Any, inputs: Iterable[str | Path]) -> str:
    """A hash of settings (anything JSON can hold), input files and folders, this library's code, and `LIBRARIES`.

    The number of processes counts as well: another one sums in another order. So does the arithmetic, which on another
    kind of processor may be another.
    """
    known = [settings, {name: version(name) for name in LIBRARIES}, world_size(), description()]
    digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=12)
    for path in (*map(Path, inputs), Path(__file__).parents[1]):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0".encode())
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


@contextlib.contextmanager
def resume_folder(stage: str, settings: Any, inputs: Iterable[str | Path]) -> Iterator[Path]:
    """The folder for a stage's resume state: left in place when the block fails, deleted when it ends well.

    Of several processes of one run the first one alone locks and deletes it.

    Raises:
        UserError: another process works on the same state; or, at the end, what the stage reads has changed.
    """
    folder = Path(os.environ.get("DVC_ROOT", ""), ".resume", stage, fingerprint(settings, inputs))
    if rank() > 0:
        yield folder
        return
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _try_lock(folder)
        if lock is None:
            raise UserError(f"{folder}: another process is at the same work; wait for it, or stop it")
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        _delete_oldest(folder.parent)
    try:
        yield folder
        unchanged.check(f", or undo the change first: it then goes on from {_last_point}" if _last_point else "")
        _delete(folder, lock)
    finally:
        lock.release(force=True)


def goes_on(stage: str, point: str) -> None:
    """Say that an earlier run's resume point was found, "step 40" for one, and that this run begins there."""
    if rank() == 0:
        print(f"{stage}: goes on from {point}", file=sys.stderr, flush=True)
    saved(point)


def saved(point: str) -> None:
    """Note that a run killed from now on goes on from `point`."""
    global _last_point
    _last_point = point


def last_point() -> str | None:
    """Where a run goes on that is killed now; None: at the beginning."""
    return _last_point


def _delete_oldest(folder: Path) -> None:
    """Delete a stage's states but the newest, unless a process works on them."""
    for rubbish in folder.glob("*.deleted"):
        shutil.rmtree(rubbish, ignore_errors=True)
    ages = {}
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process, beside this one, has just deleted it
            if path.is_dir():
                ages[path] = path.stat().st_mtime
    for state in sorted(ages, key=ages.__getitem__)[:-KEPT]:
        if (lock := _try_lock(state)) is not None:
            _delete(state, lock)


def _try_lock(folder: Path) -> FileLock | None:
    """A held lock that keeps others from `folder` until it is released, or its process ends; None: it is taken."""
    # Not 0 seconds: a lock file that its owner deletes at this very moment is looked for once more.
    lock = FileLock(folder.with_suffix(".lock"), timeout=0.1, poll_interval=0.02)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _delete(folder: Path, lock: FileLock) -> None:
    """Delete a state and its lock. It is renamed first, so that a kill leaves no half of it to be found."""
    rubbish = folder.with_suffix(".deleted")
    shutil.rmtree(rubbish, ignore_errors=True)
    os.rename(folder, rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)
    with contextlib.suppress(PermissionError):  # Windows keeps a file that is open
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release(force=True)
