"""Raw rows of JSON lines, JSON, CSV and parquet.

A row that cannot be decoded is yielded as the reason for its refusal (a str) in the place of a dict, so that it is
counted with those that `clean.py` refuses.
"""

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from minirlhf.data.files import format_of
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import check_is_there, is_unicode, parse_json

RawRow = dict[str, Any] | str
# What a JSON object calls its rows.
WRAPPERS = ("data", "rows", "train", "examples", "instances")
LONGEST_FIELD = 2**31 - 1  # of CSV; the module's own limit is 128 KiB


def read_rows(path: Path, key: str | None = None) -> Iterator[RawRow]:
    """The rows of a file, or of what its JSON object holds under `key`.

    Raises:
        UserError: the file cannot be read, or a line of it is no JSON or CSV.
    """
    kind = format_of(path)
    read = {".parquet": _read_parquet, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv}.get(kind, _read_lines)
    check_is_there(path)
    try:
        yield from read(path) if key is None else _unwrap(_parse_whole(path)[key])
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeError as error:  # UTF-8 does not get here
        raise UserError(f"{path}: not UTF-16, as which it begins: save it as UTF-8") from error


def _open(path: Path, newline: str | None = None) -> IO[str]:
    """A text file, UTF-8 (or UTF-16, where a byte order mark says so); bytes that are no UTF-8 become lone surrogates.

    With no `newline` a line ends with any of \\n, \\r and \\r\\n.
    """
    file = gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")  # noqa: SIM115
    with_mark = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    file.seek(0)
    encoding, errors = ("utf-16", "strict") if with_mark else ("utf-8-sig", "surrogateescape")
    return io.TextIOWrapper(file, encoding, errors, newline)


def _read_lines(path: Path) -> Iterator[RawRow]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip().lstrip("\ufeff")  # files put together keep the mark of each
            if number == 1 and line.startswith("[") and not line.endswith("]"):  # a list, whatever the file is called
                yield from _unwrap(_parse_whole(path))
                return
            if line and not is_unicode(line):
                yield "invalid_utf8"
            elif line:
                row = parse_json(line, f"{path}, line {number}")
                yield from [row] if isinstance(row, dict) else _rows_of(row)


def _read_json(path: Path) -> Iterator[RawRow]:
    """A list, an object that holds one, a table as pandas writes it; or JSON lines, which are called so too."""
    with _open(path) as file:
        first = next((line for line in file if line.strip()), "")
        more = next((line for line in file if line.strip()), "")
    try:
        as_lines = isinstance(json.loads(first), dict) and more
    except (ValueError, RecursionError):
        as_lines = False
    yield from _read_lines(path) if as_lines else _unwrap(_parse_whole(path))


def _parse_whole(path: Path) -> Any:
    with _open(path) as file:
        text = file.read()
    if stray := re.search("[\\ud800-\\udfff]", text):
        raise UserError(f"{path}, line {text.count(chr(10), 0, stray.start()) + 1}: not UTF-8")
    return parse_json(text, str(path))


def _unwrap(value: Any) -> Iterator[RawRow]:
    """The rows in a value of JSON: a list, an object that holds one, or columns as pandas and `datasets` write them.

    >>> list(_unwrap({"data": [{"a": 1}]})), list(_unwrap({"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}))
    ([{'a': 1}], [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}])
    """
    if not isinstance(value, dict):
        yield from _rows_of(value)
    elif isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
        yield from (dict(zip(value["columns"], row, strict=False)) for row in value["data"])
    elif key := next((key for key in WRAPPERS if isinstance(value.get(key), list)), None):
        yield from _rows_of(value[key])
    elif value and all(isinstance(column, dict) for column in value.values()):  # pandas' own way
        yield from ({name: value[name].get(index) for name in value} for index in next(iter(value.values())))
    elif value and all(isinstance(column, list) and not _holds_objects(column) for column in value.values()):
        yield from (dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=False))
    else:
        yield value


def _holds_objects(items: list) -> bool:
    """Whether a list is one of messages, and no column."""
    return any(isinstance(item, dict) for item in items)


def _rows_of(value: Any) -> Iterator[RawRow]:
    """The objects of a list, what the hub's viewer puts around each taken off."""
    for row in value if isinstance(value, list) and value else [None]:
        inner = row.get("row", row) if isinstance(row, dict) else row
        yield inner if isinstance(inner, dict) else "not_an_object"


def _read_csv(path: Path) -> Iterator[RawRow]:
    """Rows under a header; parted by commas, semicolons (as Excel does in much of Europe) or tabs."""
    csv.field_size_limit(LONGEST_FIELD)
    with _open(path, newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
            for fields in reader:
                if len(fields) > len(columns):
                    yield "ragged"
                elif not all(map(is_unicode, fields)):
                    yield "invalid_utf8"
                elif fields:
                    yield dict(zip(columns, fields, strict=False))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def _read_parquet(path: Path) -> Iterator[RawRow]:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=1024):
                for index in range(len(batch)):
                    try:
                        yield batch.slice(index, 1).to_pylist()[0]
                    except UnicodeDecodeError:
                        yield "invalid_utf8"
    except Exception as error:  # a damaged page shows as nearly any type, a date of the year 20,000 as another
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a parquet file that can be read: {reason}") from error
