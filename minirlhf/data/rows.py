"""Raw rows of JSON-lines and parquet files, brought to TRL's column names.

A row that cannot be decoded is yielded as the reason for its refusal (a str) in the place of a dict, so that it is
counted with those that `clean.py` refuses.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import parse_json
from minirlhf.text.prompts import Post, build_prompt

RawRow = dict[str, Any] | str
SPLITS = ("train", "validation", "test")


def find_split_files(folder: Path, name: str) -> dict[str, list[Path]]:
    """The files of each split below a folder: `train.jsonl`, `train-00000-of-00002.parquet`, `train/0000.parquet`.

    Raises:
        UserError: there is no train or validation split, or there are several data sets in the folder.
    """
    files: dict[str, list[Path]] = {}
    homes = set()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".jsonl", ".parquet") or not path.is_file():
            continue
        by_folder = path.parent.name in SPLITS and path.parent != folder
        split = path.parent.name if by_folder else next((s for s in SPLITS if _is_named(path, s)), None)
        if split:
            files.setdefault(split, []).append(path)
            homes.add((path.parent.parent if by_folder else path.parent).relative_to(folder).as_posix())
    for split in ("train", "validation"):
        if split not in files:
            raise UserError(f"{name}: no {split} split: expected {split}.jsonl or {split}*.parquet")
    if len(homes) > 1:
        raise UserError(f"{name}: several data sets in one folder ({', '.join(sorted(homes))}): expected one")
    return files


def _is_named(path: Path, split: str) -> bool:
    return path.stem == split or path.name.startswith((f"{split}-", f"{split}_", f"{split}."))


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file. UserError for one that cannot be read, or a line that is not JSON."""
    rows = _read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)
    try:
        for row in rows:
            yield to_trl_columns(row)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                yield "invalid_utf8"
                continue
            row = parse_json(text, f"{path}, line {number}")
            yield row if isinstance(row, dict) else "not_an_object"


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


def to_trl_columns(row: RawRow) -> RawRow:
    """A row of openai/summarize_from_feedback as prompt, chosen and rejected; any other row as it is.

    >>> info = {"subreddit": "a", "title": "b", "post": "c"}
    >>> to_trl_columns({"info": info, "summaries": [{"text": " x"}, {"text": " y"}], "choice": 1})
    {'prompt': 'SUBREDDIT: r/a\\n\\nTITLE: b\\n\\nPOST: c\\n\\nTL;DR:', 'chosen': ' y', 'rejected': ' x'}
    """
    if isinstance(row, str) or "info" not in row or "choice" not in row:
        return row
    try:
        parts = [row["info"][key] for key in ("subreddit", "title", "post")]
        summaries = [summary["text"] for summary in row["summaries"]]
        choice = row["choice"]
        if not all(isinstance(part, str) for part in parts):  # the set holds news articles too, which are no posts
            return "not_a_post"
        if not isinstance(choice, int) or choice not in (0, 1) or len(summaries) != 2:
            return "mistyped_field"
    except (KeyError, TypeError):
        return "missing_field"
    return {"prompt": build_prompt(Post(*parts)), "chosen": summaries[choice], "rejected": summaries[1 - choice]}
