"""Whether what a stage reads is at its end what it was at its start.

DVC notes a stage's settings and inputs when the stage has ended. What was edited meanwhile would be noted as what the
result was made with, and `dvc repro` would believe it (DVC issue 11058). So a stage looks itself, at what dvc.yaml says
that it depends on, and fails where that has changed: DVC then records nothing, and runs it again.
"""

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.launch import rank

PARAMS = "params.yaml"
LARGE = 2**26  # bytes; of a larger file the size and time of change stand for the content
SHOWN = 3

_noted: dict[str, Any] = {}


def note() -> None:
    """Note what this stage reads: that which DVC runs, or the one whose script runs without arguments."""
    _noted.clear()
    if rank() == 0:
        _noted.update(_reads())


def check(how: str = "") -> None:
    """Raise UserError for what has changed since `note`, a setting or a file; `how` it goes on is said with it."""
    now = _reads() if _noted else {}
    changed = [name for name in {**_noted, **now} if _noted.get(name) != now.get(name)]
    if changed:
        more = f" and {len(changed) - SHOWN} more" * (len(changed) > SHOWN)
        raise UserError(
            f"{', '.join(changed[:SHOWN])}{more} changed while this stage ran, and its result is of what was before: "
            f"run the same command again{how}"
        )


def _reads() -> dict[str, Any]:
    """The settings and the files that dvc.yaml names for this stage, by their names, each with what it is now."""
    stage = os.environ.get("DVC_STAGE") or (Path(sys.argv[0]).stem if len(sys.argv) == 1 else "")
    pipeline = _yaml("dvc.yaml") if stage else None
    stage, _, number = stage.partition("@")
    named, params = (pipeline or {}).get("stages", {}).get(stage, {}), _yaml(PARAMS)
    known = params
    if number.isdigit():  # one of several: of a group of settings in a list
        items = _lookup(params, str(named.get("foreach")).strip("${}"))
        item = items[int(number)] if isinstance(items, list) and int(number) < len(items) else None
        named, known = named.get("do", {}), {**(params or {}), "item": item}

    def resolved(text: str) -> str:
        return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_lookup(known, match[1])), text)

    found: dict[str, Any] = {}
    for key in filter(lambda key: isinstance(key, str), named.get("params", ())):
        found |= dict(_leaves(resolved(key), _lookup(params, resolved(key))))
    for name in named.get("deps", ()):
        path = Path(resolved(name))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if "__pycache__" not in file.parts:
                with contextlib.suppress(OSError):  # gone, or no file
                    found[file.as_posix()] = _content(file)
    return found


def _yaml(file: str) -> Any:
    """What a YAML file holds; None where it is not there, or half-written."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return None


def _lookup(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A setting, or each of a group of them."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield f"{key} ({PARAMS})", value


def _content(file: Path) -> Any:
    state = file.stat()
    if state.st_size > LARGE:
        return state.st_size, state.st_mtime_ns
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()
