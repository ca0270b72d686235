"""DVC's command line and its lock file, for the commands that run the pipeline."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from minirlhf.runtime.errors import UserError


def dvc(*arguments: str, root: Path) -> bool:
    """Run DVC there, its output shown as it comes; whether it succeeded. Stages find this Python first."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment).returncode == 0


def git(*arguments: str, root: Path) -> bytes:
    """What a git command prints. UserError with its own words where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    except FileNotFoundError as error:
        raise UserError("git: not found; experiments live in a git repository") from error
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def parse_lock(raw: bytes) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.lock: name -> {"cmd", "deps": {path: hash}, "outs": {path: hash}, "params": {key: value}}."""
    from ruamel.yaml import YAML

    stages = {}
    for name, stage in (YAML(typ="safe").load(raw) or {}).get("stages", {}).items():
        hashes = {kind: {item["path"]: item.get("md5") for item in stage.get(kind, ())} for kind in ("deps", "outs")}
        stages[name] = {"cmd": stage["cmd"], "params": stage.get("params", {}).get("params.yaml", {}), **hashes}
    return stages


def hash_of(path: Path) -> str | None:
    """The hash that dvc.lock has of a file or a folder of code, whose compiled form does not count; None: not there."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        names = sorted(name for name in files if "__pycache__" not in name.split("/"))
        listed = [{"md5": hash_of(files[name]), "relpath": name} for name in names]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else None
