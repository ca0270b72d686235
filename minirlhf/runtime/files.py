"""Read and write JSON, JSON lines and CSV. What is written appears whole or not at all.

Files are UTF-8. A file is replaced through a temporary sibling, never written in place: an output may be
a hard link into DVC's cache, and a reader never sees half of it. Errors are `UserError`s that name the file.
"""

import contextlib
import csv
import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from minirlhf.runtime.errors import UserError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file that takes the place of `path` when the block ends well, and else vanishes."""
    path = Path(path)
    temporary = _beside(path, "tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            recover(path)
            with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """A new empty folder that takes the place of `path` when the block ends well, and else vanishes.

    The swap is two renames: killed between them, `path` is missing but never half-written, and `recover` brings the
    old one back.
    """
    path = Path(path)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            recover(path)
            temporary.mkdir()
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    sync(Path(folder, name))
                sync(folder)
            if path.exists():
                os.rename(path, old)
            os.rename(temporary, path)
            sync(path.parent)
        finally:
            if old.exists() and not path.exists():
                os.rename(old, path)
            for leftover in (temporary, old):
                shutil.rmtree(leftover, ignore_errors=True)


def recover(path: str | Path) -> None:
    """Put right what a process that was killed while it replaced `path` left beside it."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        found = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.(tmp|old)", leftover.name)
        if found is None:
            continue
        if found[2] == "old" and not path.exists():
            os.rename(leftover, path)
        elif not _is_alive(int(found[1])):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises in the block into a UserError that names `path`."""
    try:
        yield
    except Exception as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else write_failure(error)
        if reason is None:
            raise
        raise UserError(f"{path}: cannot be written: {reason}") from error


def write_failure(error: Exception) -> str | None:
    """Why a file could not be written, where `error` says that; None for any other error.

    The system's own errors, and how safetensors and PyTorch pass them on.
    """
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in DISK_ERRORS else None
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors, as Rust words it
        return os.strerror(int(found[1])) if int(found[1]) in DISK_ERRORS else None
    if isinstance(error, RuntimeError) and re.search(r"PyTorchStreamWriter|inline_container", str(error)):
        return "the disk is full or not writable"  # torch.save does not say which
    return None


def _beside(path: Path, kind: str) -> Path:
    """A hidden sibling of this process alone, which nobody takes for `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def sync(path: str | Path) -> None:
    """Have the disk hold a file or a folder's list of names, so that a power cut after the rename loses neither."""
    if os.name == "nt" and os.path.isdir(path):  # which opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def numbered_folders(parent: Path) -> dict[int, Path]:
    """The subfolders whose names end in a number, by that number; none where there is no such folder."""
    if not parent.is_dir():
        return {}
    named = ((re.search(r"(\d+)$", folder.name), folder) for folder in parent.iterdir() if folder.is_dir())
    return {int(match.group(1)): folder for match, folder in named if match}


def _is_alive(pid: int) -> bool:
    """Whether another process has this number; this one has it anew, if it has it."""
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text. UserError, beginning with `where`, for one that is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 100,000 brackets
        raise UserError(f"{where}: not JSON that can be read: {error}") from error


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}") from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file."""
    return _decode(_read_bytes(path), str(path))


def check_is_there(path: Path) -> None:
    """Raise UserError for a pointer of git-lfs in the place of a file, as a clone without it leaves."""
    try:
        with open(path, "rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if pointer:
        raise UserError(f"{path}: not the file itself, but git-lfs's pointer to it: git lfs pull")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file."""
    return parse_json(read_text(path), str(path))


def read_object(path: str | Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The object in a JSON file. UserError for another value, or one that lacks a key."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    for key in keys:
        if key not in value:
            raise UserError(f"{path}: no {key!r} in it")
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, keys in their given order. ValueError for NaN and infinity, which JSON does not have."""
    with replace_file(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2, allow_nan=False)
        file.write("\n")


def read_jsonl(path: str | Path, texts: Sequence[str] = ()) -> list[dict]:
    """The objects of a JSON-lines file, one a line; blank lines are passed over.

    Args:
        texts: keys under which each object must have a text; there must be an object then.
    """
    rows = []
    for number, line in enumerate(_read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse_json(_decode(line, where), where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, got {type(row).__name__}")
        for key in texts:
            if not is_unicode(row.get(key)):
                raise UserError(f"{where}: no text under {key!r}")
        rows.append(row)
    if texts and not rows:
        raise UserError(f"{path}: no rows")
    return rows


def is_unicode(value: Any) -> bool:
    """Whether a value is a text that can be written: JSON can spell half of a surrogate pair, which is none."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Write one JSON object a line; the number of rows written."""
    count = 0
    with replace_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header. A field that reads as a number is one; an empty one is None."""
    reader = csv.DictReader(read_text(path).splitlines())
    return [{key: _number_or_text(value) for key, value in row.items()} for row in reader]


def _number_or_text(field: str | None) -> int | float | str | None:
    if not field:
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(field)
    return field


def write_csv(path: str | Path, rows: Iterable[dict], columns: list[str] | None = None) -> None:
    """Write rows under one header: `columns`, or the keys of all rows as they appear. None is empty.

    By the standard library: pandas would write 3 as 3.0 in a column with gaps, and takes half a second to import.
    """
    rows = list(rows)
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    with replace_file(path) as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
