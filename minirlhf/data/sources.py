"""The rows of each split of a source: the embedded world, a folder of files, or a data set on the hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minirlhf.data.files import FORMATS, SPLITS, Part, SplitFiles, find_split_files
from minirlhf.data.rows import RawRow, read_rows
from minirlhf.data.shapes import COMPARISONS, POSTS, to_shape
from minirlhf.hub.locate import EMBEDDED, hub_dataset, locate
from minirlhf.hub.repository import download
from minirlhf.runtime.errors import UserError
from minirlhf.text.spelling import body_of, said, skeleton

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
        self.columns = POSTS if what == "posts" else COMPARISONS
        self._files: dict[str, list[Part]] = {}
        self.unread: list[Path] = []  # files that might be meant too
        if self.kind != EMBEDDED:
            folder = download_dataset(known_as, fingerprint["commit"]) if self.kind == "hub" else locate(self.name)
            found = self._find(folder or Path(self.name))
            self._files, self.unread = found.parts, found.unread

    def _find(self, folder: Path) -> SplitFiles:
        try:
            return find_split_files(folder, self.name, self.what)
        except UserError as error:
            if self.kind != "hub":
                raise
            how = f"hf download {hub_dataset(self.name)} --repo-type dataset --local-dir data/own/{self.what}"
            raise UserError(f"{error}; download it ({how}), put that in order, and name the folder") from error

    def limit(self, split: str) -> int | None:
        """How many rows of a split the params ask for; None is all."""
        train = self.data.max_posts if self.what == "posts" else self.data.max_comparisons
        return {"train": train, "validation": self.data.max_validation, "test": self.data.max_test}[split]

    def rows(self, split: str) -> Iterator[RawRow]:
        """The raw rows of a split. Where validation or test is missing, the other one is halved."""
        if self.kind == EMBEDDED:
            from minirlhf import world

            make = world.posts if self.what == "posts" else world.comparisons
            yield from make(self.data.world_seed, split, self.limit(split), self.data.habits)
            return
        whole = split in self._files and len(self._files) == len(SPLITS)
        if whole or split == "train":
            for part in self._files[split]:
                yield from read_rows(*part)
            return
        held_out = next(name for name in SPLITS[1:] if name in self._files)
        for part in self._files[held_out]:
            for row in read_rows(*part):
                if is_for_test(to_shape(row, self.columns)) == (split == "test"):
                    yield row


def is_for_test(row: RawRow) -> bool:
    """Whether a row in its shape goes to the test half, where one held-out split is halved: by a hash of its post.

    All rows of a post go to the same half, of posts as of comparisons, in any spelling.
    """
    if isinstance(row, str):
        return False
    return hashlib.sha256(skeleton(body_of(said(row))).encode("utf-8", "replace")).digest()[0] % 2 == 1


def download_dataset(name: str, commit: str) -> Path:
    """The folder of a hub data set's files at a commit: of its part that is meant."""
    part = PARTS.get(name)
    patterns = (f"{part}/*",) if part else tuple(f"*{suffix}" for name in FORMATS for suffix in (name, f"{name}.gz"))
    return download(name, commit, "dataset", patterns) / (part or "")
