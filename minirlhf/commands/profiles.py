"""Put one of the complete settings files in `profiles/` in the place of `params.yaml`."""

import subprocess
from pathlib import Path

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_text, replace_file
from minirlhf.settings.params import parse_params


def profile_names(root: str | Path = ".") -> list[str]:
    """The names of the profiles under `root`, sorted."""
    return sorted(path.stem for path in Path(root, "profiles").glob("*.yaml"))


def use_profile(name: str, root: str | Path = ".") -> None:
    """Copy `profiles/NAME.yaml` to `params.yaml`.

    Raises UserError for an unknown or invalid profile, and where params.yaml holds edits that are neither
    committed nor a profile, since they would be lost.
    """
    root = Path(root)
    if name not in profile_names(root):
        raise UserError(f"profile {name}: expected one of {', '.join(profile_names(root)) or 'profiles/*.yaml'}")
    source, target = root / "profiles" / f"{name}.yaml", root / "params.yaml"
    text = read_text(source)
    parse_params(text, str(source))
    if target.exists() and _would_be_lost(target, root):
        raise UserError(
            f"{target}: has edits that are not committed: commit them, save them as a profile "
            f"(cp {target} {root / 'profiles' / 'mine.yaml'}), or undo them (git checkout {target})"
        )
    with replace_file(target) as file:
        file.write(text)


def _would_be_lost(target: Path, root: Path) -> bool:
    current = read_text(target)
    if any(current == read_text(root / "profiles" / f"{name}.yaml") for name in profile_names(root)):
        return False
    command = ["git", "-C", str(root), "status", "--porcelain", "--", target.name]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # no git here
        return True
    return result.returncode != 0 or result.stdout != ""
