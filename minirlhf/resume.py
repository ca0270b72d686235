"""Where a killed stage finds its way back: a folder outside DVC's outputs, named after all that the result depends on.

DVC deletes a stage's outputs before it runs, so what a stage wants to find again after a kill stays in
`.resume/STAGE/FINGERPRINT/` of the repository that DVC was started in (also of a temporary or queued experiment).
Another setting, input or line of code gives another fingerprint, and so never goes on from an old state.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def fingerprint(settings: Any, inputs: Iterable[str | Path]) -> str:
    """A hash of settings (anything JSON can hold), of input files and folders, and of this library's code."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12)
    for path in (*map(Path, inputs), Path(__file__).parent):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0".encode())
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


@contextlib.contextmanager
def resume_folder(stage: str, settings: Any, inputs: Iterable[str | Path]) -> Iterator[Path]:
    """The folder for a stage's resume state: left in place when the block fails, deleted when it ends well."""
    root = Path(os.environ.get("DVC_ROOT", ""))
    folder = root / ".resume" / stage / fingerprint(settings, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)
