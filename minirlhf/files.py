"""Read and write JSON, JSON lines and CSV. What is written appears whole or not at all.

Files are UTF-8. A file is replaced through a temporary sibling, never written in place: an output may be
a hard link into DVC's cache, and a reader never sees half of it. Errors are `UserError`s that name the file.
"""

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from minirlhf.errors import UserError


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file that takes the place of `path` when the block ends well, and else vanishes."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """A new empty folder that takes the place of `path` when the block ends well, and else vanishes.

    The swap is two renames: killed between them, `path` is missing but never half-written.
    """
    path = Path(path)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


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
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            return kind(field)
    return field or None


def write_csv(path: str | Path, rows: Iterable[dict], columns: list[str] | None = None) -> None:
    """Write rows under one header: `columns`, or the keys of all rows as they appear. None is empty."""
    rows = list(rows)
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    with replace_file(path) as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
