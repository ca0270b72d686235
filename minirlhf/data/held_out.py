"""Comparisons to examine a reward model on: a file, a folder or a data set on the hub, read without the pipeline.

Rows take the shapes of docs/data.md and are put right as `prepare` does, but for two things: no model says how long a
text may be, and a pair that comes again stays, since only so it is known how far labels agree.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minirlhf.data.files import SPLITS, find_split_files, format_of
from minirlhf.data.normal import Normalizer
from minirlhf.data.rows import RawRow, read_rows
from minirlhf.data.shapes import COMPARISONS
from minirlhf.data.sources import download_dataset
from minirlhf.hub.fingerprint import CONVERTED
from minirlhf.hub.locate import EMBEDDED, hub_dataset, locate
from minirlhf.hub.repository import resolve_commit
from minirlhf.runtime.errors import UserError

VOTERS = ("voter", "worker", "annotator")  # who said so, as data sets call it
WORLD = (1, 400)  # of the embedded world as params.yaml has it: its seed, and comparisons of the test split


@dataclass
class Comparisons:
    """Comparisons to examine on, and what became of their rows.

    A row has prompt, chosen and rejected; chosen_ended and rejected_ended, record and subreddit where they are known;
    `first` ("chosen" or "rejected": which was shown first), `voter`, and the columns that were asked for.
    """

    rows: list[dict] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def take(self, raw_rows: Iterable[RawRow], columns: Sequence[str], limit: int | None) -> None:
        """Add raw rows, at most `limit` in all."""
        normalize = Normalizer(COMPARISONS)
        for raw in raw_rows:
            if len(self.rows) == limit:
                return
            row = normalize(raw)
            if isinstance(row, str) or isinstance(raw, str):
                self.refused[str(row)] += 1
                continue
            self.changed.update(row.pop("changes"))
            self.rows.append(row | _known(raw) | {name: _shown(raw.get(name)) for name in columns})


def read_comparisons(
    name: str,
    split: str | None = None,
    revision: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
) -> Comparisons:
    """The comparisons that a name stands for: a file, a folder, `embedded`, or a name on the hub.

    Args:
        split: of a folder or a name on the hub; None: test if there is one, else validation.
        columns: what else to keep of a row.

    Raises:
        UserError: it cannot be read, lacks the split or one of the columns, or has no comparison that can be used.
    """
    found = Comparisons()
    found.take(_raw_rows(name, split, revision), columns, limit)
    if not found.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.refused.items()))
        raise UserError(f"{name}: no comparison that can be used (refused: {reasons or 'none'})")
    for column in columns:
        if all(row[column] == "" for row in found.rows):
            raise UserError(f"{name}: no column {column} in its rows")
    return found


def _raw_rows(name: str, split: str | None, revision: str | None) -> Iterator[RawRow]:
    if Path(name).is_file():
        if format_of(Path(name)) is None:
            raise UserError(f"{name}: expected JSON lines, JSON, CSV or parquet")
        yield from read_rows(Path(name))
        return
    if name == EMBEDDED:
        from minirlhf import world

        yield from world.comparisons(WORLD[0], split or "test", WORLD[1])
        return
    folder = locate(name)
    if folder is None:
        name = hub_dataset(name)
        folder = download_dataset(name, resolve_commit(name, revision or CONVERTED.get(name), "dataset"))
    parts = find_split_files(folder, name, "comparisons").parts
    split = split or next(found for found in reversed(SPLITS) if found in parts)
    if split not in parts:
        raise UserError(f"{name}: no split {split}; it has {', '.join(parts)}")
    for part in parts[split]:
        yield from read_rows(*part)


def _known(raw: dict) -> dict:
    """Of a raw row what is no text of it: who ended, who voted, and which summary was shown first."""
    known = {key: raw[key] for key in ("chosen_ended", "rejected_ended") if isinstance(raw.get(key), bool)}
    voter = next((raw[name] for name in VOTERS if raw.get(name) not in (None, "")), None)
    known |= {} if voter is None else {"voter": str(voter)}
    if raw.get("first") in ("chosen", "rejected"):
        return known | {"first": raw["first"]}
    in_order = "summaries" in raw or "response0" in raw  # of OpenAI, and of Huang et al. 2024
    return known | ({"first": "rejected" if int(raw["choice"]) else "chosen"} if in_order and "choice" in raw else {})


def _shown(value: object) -> str:
    return "" if value is None else str(value)
