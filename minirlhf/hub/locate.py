"""What a name in the params stands for: the embedded world, a folder, or a name on the hub. Imports nothing heavy."""

import os
import re
from pathlib import Path

from minirlhf.runtime.errors import UserError

EMBEDDED = "embedded"
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# Data sets that are known by another name than the hub's.
ALIASES = {"openai/summarize_tldr": "trl-lib/tldr"}


def locate(name: str) -> Path | None:
    """The folder that `name` stands for, or None for a name on the hub.

    A relative folder is looked for here, then in the repository that DVC was started in (`DVC_ROOT`): a temporary
    experiment runs in a copy that has the tracked files only.

    Raises:
        UserError: there is no such folder, and the name cannot be one of the hub.
    """
    path = Path(name).expanduser()
    for root in (Path(), Path(os.environ.get("DVC_ROOT", ""))):
        if (root / path).is_dir():
            return root / path
    if path.exists():
        raise UserError(f"{name}: expected a folder, got a file")
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: no such folder")
    return None


def model_place(name: str) -> str:
    """A model's name as `from_pretrained` takes it: the folder it stands for, or the hub name."""
    return str(locate(name) or name)


def hub_dataset(name: str) -> str:
    """The hub's own name of a data set."""
    return ALIASES.get(name.lower(), name)
