"""Which files of a folder are which split, by the names that data sets are found under.

`train.jsonl`, `train-00000-of-00002.parquet`, `train/0000.parquet`, `valid.csv`, or one `posts.json` whose keys are the
splits. Hidden files and folders are passed over.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from minirlhf.runtime.errors import UserError

SPLITS = ("train", "validation", "test")
# The words of Hugging Face's `datasets` for a split (SPLIT_KEYWORDS in its data_files.py), the plainest first.
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")  # each also with .gz
ANY_WORD = "|".join(word for words in WORDS.values() for word in words)
NAME = re.compile(rf"(?P<word>{ANY_WORD})(?P<number>\d*)(?P<more>[-_. ].*)?")
# What splits are called that are meant for supervised fine-tuning, and for preferences (ultrafeedback_binarized).
USES = {"posts": ("sft",), "comparisons": ("prefs", "preferences", "comparisons")}
SHARD = re.compile(r"[-_.](?:part[-_.]?)?\d+(?:-of-(?P<count>\d+))?(?:-[0-9a-f]{16})?")


class Part(NamedTuple):
    """A file with rows of one split: all of it, or what a JSON object holds under `key`."""

    path: Path
    key: str | None = None


@dataclass
class SplitFiles:
    """The parts of each split that was found, and the other files that might be taken for data."""

    parts: dict[str, list[Part]] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)


class Family(NamedTuple):
    """What the files of one set of rows have in common; the smaller, the plainer."""

    named: bool  # `train_prefs`: of two such sets neither is plainer
    word: int  # its place among the split's words
    number: int  # `valid1`; 1 for both `train1` and `train2`, of which neither is plainer
    rest: str
    format: str


def find_split_files(folder: Path, name: str, what: str | None = None) -> SplitFiles:
    """The files of each split below a folder; one of validation and test may be missing.

    Of several that might be meant the plainest name is taken (`valid` before `valid1`, `train` before `train_prefs`);
    where none is plainer, the one that is named for its use, and where none is, one is asked for.

    Args:
        what: posts or comparisons: of `train_sft` and `train_prefs` the first, or the second.

    Raises:
        UserError: a split is missing, cannot be told from another, or lacks a file; there are several data sets.
    """
    seen = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.is_file() and not _is_hidden(path.relative_to(folder)):
            where = "a folder, which is not followed" if path.is_dir() else "nothing"
            raise UserError(f"{path}: a link to {where}: put the files themselves there")
    data = [path for path in seen if format_of(path)]
    families: dict[str, dict[Family, list[Path]]] = {split: {} for split in SPLITS}
    homes = set()
    for path in data:
        if (found := _recognize(path, folder)) is not None:
            split, family, home = found
            families[split].setdefault(family, []).append(path)
            homes.add(home.relative_to(folder).as_posix())
    if len(homes) > 1:
        raise UserError(f"{name}: several data sets in one folder ({', '.join(sorted(homes))}): expected one")
    chosen = {split: _choose(of, split, name, USES.get(what, ())) for split, of in families.items() if of}
    parts = {split: [Part(path) for path in of] for split, of in chosen.items()}
    parts = parts or _splits_inside(data)
    for split in SPLITS[:2]:
        if split not in parts and (split == "train" or len(parts) < 2):
            there = _listed(path.relative_to(folder).as_posix() for path in seen)
            raise UserError(f"{name}: no {split} split among {there}: expected {split} with {_listed(FORMATS)}")
    used = {part.path for of in parts.values() for part in of}
    return SplitFiles(parts, [path.relative_to(folder) for path in data if path not in used])


def format_of(path: Path) -> str | None:
    """The suffix that says how a file is read, `.gz` left out; None for a file that is no data."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in FORMATS else None


def _is_hidden(path: Path) -> bool:
    """Notebooks' checkpoints, and what macOS puts beside files and into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _recognize(path: Path, folder: Path) -> tuple[str, Family, Path] | None:
    """The split of a file, its family, and the folder that the splits are in; None where no name says a split."""
    form = format_of(path)
    own = NAME.fullmatch(path.name.lower().removesuffix(".gz").removesuffix(form))
    above = NAME.fullmatch(path.parent.name.lower()) if path.parent != folder else None
    if (match := own or above) is None:
        return None
    split = _split_of(match)
    by_folder = above is not None and _split_of(above) == split
    match = above if by_folder else match
    more = match["more"] or ""
    more = "" if SHARD.fullmatch(more) else SHARD.sub("", more)
    number = int(match["number"] or 0)
    family = Family(
        bool(more), WORDS[split].index(match["word"]), min(number, 1) if split == "train" else number,
        match["number"] + more, form,
    )  # fmt: skip
    return split, family, path.parent.parent if by_folder else path.parent


def _split_of(match: re.Match) -> str:
    return next(split for split, words in WORDS.items() if match["word"] in words)


def _choose(families: dict[Family, list[Path]], split: str, name: str, uses: tuple[str, ...]) -> list[Path]:
    """The files of the plainest family. UserError where several are as plain, or where a file of it is missing."""
    first = min(families)
    rivals = [family for family in families if first.named or family[:3] == first[:3]]
    meant = [family for family in rivals if family.rest.strip("-_. ") in uses]
    if len(meant) == 1:
        first = meant[0]
    elif len(rivals) > 1:
        shown = _listed(sorted(families[family][0].name for family in rivals))
        raise UserError(f"{name}: several files for {split} ({shown}): leave the one that is meant")
    paths = families[first]
    counts = {int(shard["count"]) for path in paths for shard in SHARD.finditer(path.name) if shard["count"]}
    if counts and counts != {len(paths)}:
        raise UserError(f"{name}: {split}: only {len(paths)} of {max(counts)} files, of which {paths[0].name} is one")
    return paths


def _splits_inside(data: list[Path]) -> dict[str, list[Part]]:
    """The splits in a folder's only data file: a JSON object whose keys are their names."""
    if len(data) != 1 or data[0].suffix.lower() != ".json":
        return {}
    try:
        content = json.loads(data[0].read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    keys = list(content) if isinstance(content, dict) else []
    found = {split: [key for word in words for key in keys if key.lower() == word] for split, words in WORDS.items()}
    return {split: [Part(data[0], of[0])] for split, of in found.items() if of}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8] + ["..."] * (len(names) > 8)) or "no files"
