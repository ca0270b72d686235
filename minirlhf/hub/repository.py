"""Repositories of the Hugging Face hub: the commit that a name is at, and its files at a commit, whole and unharmed.

Only this module talks to the hub. Models, tokenizers and data are loaded from the folder that `download` returns, so
that nothing below asks the hub for anything by itself, and nothing is loaded that was not checked.
"""

import hashlib
from pathlib import Path
from typing import Literal

from minirlhf.runtime.errors import UserError, first_line

Kind = Literal["dataset", "model"]


def resolve_commit(name: str, revision: str | None, kind: Kind) -> str:
    """The commit that a revision (branch, tag; None: the main branch) of a hub repository is at.

    Where the hub cannot be reached it is the commit that was resolved last, with a warning by huggingface_hub. A
    commit is its own answer, without asking.

    Raises:
        UserError: no such repository or revision, no access to it, or the hub does not answer.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().resolve_revision(name, revision=revision, repo_type=kind).resolved)
    except Exception as error:  # each layer below has exceptions of its own
        raise UserError(f"{name}: {_explain(error, revision, kind)}") from error


def download(name: str, commit: str, kind: Kind, patterns: tuple[str, ...]) -> Path:
    """The folder with a repository's files at a commit, from the local cache where they are there.

    Every file is compared with the hash by which the hub names it (SHA-256 of a large file, git's SHA-1 of a small
    one), at every call: huggingface_hub itself checks no more than the size. A file that differs is removed from the
    cache, so that the next run downloads it again.

    Args:
        patterns: the files that are meant, as `*.json`. Of a model only those outside of subfolders, which hold the
            weights once more in other formats, unless a pattern names one, as `likelihood/*.json`.

    Raises:
        UserError: no access, no such commit, a download that was cut, or a damaged file.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    deeper = "/".join("*" for _ in range(2 + max(pattern.count("/") for pattern in patterns)))  # `*` matches a slash
    chosen = {"allow_patterns": list(patterns)} | ({"ignore_patterns": [deeper]} if kind == "model" else {})
    try:
        folder = Path(snapshot_download(name, repo_type=kind, revision=commit, **chosen))
    except Exception as error:
        raise UserError(f"{name}: {_explain(error, commit, kind)}") from error
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for file in filter_repo_objects(names, **chosen):
        _check(folder / file, f"{name}: {file}")
    return folder


def upload(name: str, files: dict[str, Path | bytes], public: bool) -> str:
    """Send files to a model's repository on the hub as one commit, so that half of them is never there; its address.

    A repository that is not there is made: private, or public. One that is public gets nothing unless `public` says
    so. The token is that of `HF_TOKEN` or of `hf auth login`.

    Raises:
        UserError: no right to write there, a public repository, or an upload that was cut.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        repository = api.create_repo(name, private=not public, exist_ok=True)
        if not (public or api.model_info(repository.repo_id).private):
            raise UserError(f"{name}: a public repository: add --public to send it there")
        added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
        api.create_commit(repository.repo_id, added, commit_message="Add the model and its card")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: {_explain_upload(error)}") from error
    return repository.url


def _check(path: Path, what: str) -> None:
    """Raise UserError, and remove the file, if a file of the cache has not the content that its hash says.

    In the cache it is a link to a blob named by its hash, as huggingface_hub documents. Where a file system has no
    links, or a mirror other names, the hash is not known, and nothing is checked.
    """
    blob, expected = path.resolve(), path.readlink().name if path.is_symlink() else ""
    if len(expected) not in (40, 64):
        return
    try:
        with open(blob, "rb") as file:
            if len(expected) == 64:
                digest = hashlib.file_digest(file, "sha256")
            else:
                digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
                digest.update(file.read())
        if digest.hexdigest() == expected:
            return
        for damaged in (blob, path):
            damaged.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{what} in the cache cannot be read: {error.strerror or error}") from error
    raise UserError(f"{what} has not the content that the hub gives ({digest.name} differs); it was removed: run again")


def _explain_upload(error: Exception) -> str:
    """`_explain` of an upload."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return "the hub takes nothing there from you: set HF_TOKEN to a token that may write to it"
    return f"not sent, and nothing of it is there: run the same command again ({first_line(error.__cause__ or error)})"


def _explain(error: Exception, revision: str | None, kind: Kind) -> str:
    """What an exception of huggingface_hub, or of a layer below it, means to the user."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its terms must be accepted first: do so on its page of the hub, then set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such folder, and no such {kind} on the hub, or no access to it (private: set HF_TOKEN)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {revision} on the hub"
    if isinstance(error, errors.RevisionResolutionError):
        return f"no such folder, and the hub cannot be reached ({first_line(error.__cause__ or error)})"
    if isinstance(error, errors.LocalEntryNotFoundError):  # not at all, or in part
        return f"not downloaded whole, and the hub does not give it now ({first_line(error.__cause__ or error)})"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return "the hub gives no access to it: set HF_TOKEN to a token that may read it"
    return f"cannot be downloaded ({first_line(error)})"
