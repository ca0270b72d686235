"""The rows of each split of a source: the embedded world, a folder of files, or a data set on the hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minirlhf.data.rows import RawRow, find_split_files, read_rows
from minirlhf.hub.locate import EMBEDDED, hub_dataset, locate
from minirlhf.hub.repository import download
from minirlhf.runtime.errors import UserError

if TYPE_CHECKING:
    from minirlhf.settings.data import DataParams

What = Literal["posts", "comparisons"]
# Where a hub data set has several parts, the one that is meant.
PARTS = {"openai/summarize_from_feedback": "comparisons"}


class Source:
    """A source of posts or of comparisons, at the content that its fingerprint names.

    Args:
        what: which of the two; decides what the embedded world makes.
        data: the params, for the name and the embedded world's sizes.
        fingerprint: as made by `fingerprint.fingerprint`.

    Raises:
        UserError: the fingerprint is of another source; the source is missing or lacks a split.
    """

    def __init__(self, what: What, data: "DataParams", fingerprint: dict[str, str]):
        self.what, self.data = what, data
        self.name = data.posts if what == "posts" else data.comparisons
        self.kind = fingerprint.get("kind")
        known_as = hub_dataset(self.name) if self.kind == "hub" else self.name
        if fingerprint.get("name", EMBEDDED) != known_as:
            raise UserError(f"data.{what}: {self.name} is not the source that was looked at: run stages/source.py")
        self._files: dict[str, list[Path]] = {}
        if self.kind == "folder":
            self._files = find_split_files(locate(self.name) or Path(self.name), self.name)
        elif self.kind == "hub":
            self._files = find_split_files(_download(known_as, fingerprint["commit"]), self.name)

    def limit(self, split: str) -> int | None:
        """How many rows of a split the params ask for; None is all."""
        train = self.data.max_posts if self.what == "posts" else self.data.max_comparisons
        return {"train": train, "validation": self.data.max_validation, "test": self.data.max_test}[split]

    def rows(self, split: str) -> Iterator[RawRow]:
        """The raw rows of a split. A source without a test split has its validation split halved by prompt."""
        if self.kind == EMBEDDED:
            from minirlhf import world

            make = world.posts if self.what == "posts" else world.comparisons
            yield from make(self.data.world_seed, split, self.limit(split), self.data.habits)
            return
        halved = "test" not in self._files and split != "train"
        for path in self._files["validation" if halved else split]:
            for row in read_rows(path):
                if not halved or is_for_test(row) == (split == "test"):
                    yield row


def is_for_test(row: RawRow) -> bool:
    """Whether a row of a validation split without a test split goes to the test half: by a hash of its prompt.

    All rows of a prompt go to the same half, of posts as of comparisons.
    """
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        return False
    return hashlib.sha256(prompt.strip().encode("utf-8", "replace")).digest()[0] % 2 == 1


def _download(name: str, commit: str) -> Path:
    """The folder of a hub data set's files at a commit: of its part that is meant."""
    part = PARTS.get(name)
    patterns = (f"{part}/*",) if part else ("*.parquet", "*.jsonl")
    return download(name, commit, "dataset", patterns) / (part or "")
