"""What a source holds, in a few bytes: DVC reruns what depends on it when these change, and only then.

A hub name, or a folder outside the repository, cannot be a dependency of a DVC stage; a file with its fingerprint can.
"""

import hashlib
from pathlib import Path

from minirlhf.hub.locate import EMBEDDED, hub_dataset, locate
from minirlhf.hub.repository import Kind, resolve_commit
from minirlhf.runtime.errors import UserError

# Data sets of which the hub's own parquet copy is read, since they are scripts themselves, which are not run.
CONVERTED = {"openai/summarize_from_feedback": "refs/convert/parquet"}


def fingerprint(name: str, revision: str | None, kind: Kind) -> dict[str, str]:
    """The fingerprint of a source of data or of a model.

    Returns:
        {"kind": "embedded"}, {"kind": "folder", "name", "sha256"} over file names and contents, or {"kind": "hub",
        "name", "commit"}.

    Raises:
        UserError: there is no such folder or hub name.
    """
    if kind == "dataset" and name == EMBEDDED:
        return {"kind": EMBEDDED}
    folder = locate(name)
    if folder is not None:
        return {"kind": "folder", "name": name, "sha256": hash_folder(folder)}
    if kind == "dataset":
        name = hub_dataset(name)
        revision = revision or CONVERTED.get(name)
    return {"kind": "hub", "name": name, "commit": resolve_commit(name, revision, kind)}


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder, hidden ones left out."""
    digest = hashlib.sha256()
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(paths):
        if any(part.startswith(".") for part in name.parts):
            continue
        try:
            with open(paths[name], "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{paths[name]}: cannot be read: {error.strerror}") from error
        digest.update(f"{name.as_posix()!r} {content}\n".encode())
    return digest.hexdigest()
