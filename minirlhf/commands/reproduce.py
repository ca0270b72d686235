"""Proof of reproduction: run everything from scratch in a clone of the last commit, and compare with what is committed.

The same bytes (dvc.lock, with it the hash of every output; metrics and results) are expected on the kind of machine
that `machine.json` names. Another processor or another version of a library gives other last digits, which sampling
turns into other summaries: as another training seed would. There the metrics are compared within tolerances.
"""

import fnmatch
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from minirlhf.commands.dvc import dvc, git, parse_lock
from minirlhf.runtime import processor
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, write_json
from minirlhf.settings.params import Params, load_params

MACHINE = "machine.json"
BYTES = ("dvc.lock", "metrics/*.json", "plots/*.csv", "results/*", "results/details/*")
PACKAGES = ("torch", "transformers", "tokenizers", "trl", "datasets", "numpy", "matplotlib", "rouge-score")
OWN = ("data/own", "models/own")  # what git does not know, and a clone so does not have
# How far a number in results/details (stage.key) may be off elsewhere: one to two times the range over five training
# seeds on one machine, and less than what PPO gains. What matches none is not compared; the first that matches counts.
# Counts must agree.
TOLERANCES = {
    "prepare.*.kept": 0,
    "prepare.*.refused.*": 0,
    "sft.sft_train_loss": 0.06,
    "sft.sft_eval_loss": 0.02,
    "reward.reward_accuracy*": 0.1,
    "reward.reward_test_loss": 0.08,
    "ppo.reward": 0.2,
    "ppo.kl": 1.2,
    "ppo.length": 3.0,
    "evaluate.greedy.*.gold": 0.2,
    "evaluate.greedy.*.reward": 0.3,
    "evaluate.greedy.*.length": 6.0,
    "evaluate.*.gold": 0.75,
    "evaluate.*.reward": 0.2,
    "evaluate.*.rouge?": 0.06,
    "evaluate.*.length": 3.0,
    "evaluate.*.ended": 0.05,
    "evaluate.kl": 1.2,
    "evaluate.posts": 0,
    "evaluate.win_rate.*.value": 0.15,
}


def reproduce(root: Path = Path(), record: bool = False) -> None:
    """Run the pipeline in a temporary clone, say what was compared and how it came out.

    Args:
        record: note this machine in machine.json, if the bytes are the same.

    Raises:
        UserError: a stage failed, or something differs that should not; the clone is then kept, to look at.
    """
    root = root.resolve()
    if git("status", "--porcelain", "--untracked-files=no", root=root).strip():
        print("note: what is not committed takes no part in this")
    clone = Path(tempfile.mkdtemp(prefix="minirlhf-")) / "clone"
    git("clone", "--quiet", "--no-hardlinks", str(root), str(clone), root=root)
    committed = clone.parent / "committed"
    _copy(clone, committed)
    _isolate(clone, root)
    if not dvc("repro", "--force", root=clone):
        raise UserError(f"reproduce: a stage failed, see above; what it left is in {clone}")
    here, noted = fingerprint(load_params(clone / "params.yaml")), _machine(clone)
    print(verdict(different_files(committed, clone), committed, clone, here, noted, clone))
    if record:
        if different_files(committed, clone):
            raise UserError(f"{MACHINE}: not recorded: this machine does not give the bytes that are committed")
        write_json(root / MACHINE, here)
        print(f"{MACHINE}: recorded")
    shutil.rmtree(clone.parent)


def verdict(different: list[str], committed: Path, made: Path, here: dict, noted: dict | None, kept: Path) -> str:
    """What came out, in words.

    Args:
        different: the files whose bytes differ.
        here, noted: this machine, and the one in machine.json (None: nobody has noted it).
        kept: where to look if it went wrong.

    Raises:
        UserError: bytes differ on the same kind of machine, or a metric is out of its tolerance elsewhere.
    """
    same_machine = here == noted
    if not different:
        where = "the kind of machine that made them" if same_machine else f"another machine than {MACHINE} notes"
        return (
            f"reproduced: {', '.join(BYTES)} are the same bytes as committed, on {where if noted else 'this machine'}"
        )
    outs = ", ".join(different_outs(committed / "dvc.lock", made / "dvc.lock")) or "no output"
    if same_machine:
        raise UserError(
            f"not reproduced, on the kind of machine that made them: {', '.join(different)} differ (outputs: {outs}); "
            f"what was made is in {kept}"
        )
    compared, off = compare_metrics(committed / "results/details", made / "results/details")
    if off or not compared:
        raise UserError(
            f"not reproduced: bytes differ, and of {compared} metrics these are out of tolerance: {'; '.join(off)}; "
            f"what was made is in {kept}"
        )
    why = f"no {MACHINE} says which machine made them"
    if noted:
        changed = (f"{key}: {noted.get(key)}, here {here[key]}" for key in here if here[key] != noted.get(key))
        why = f"this is another kind of machine ({'; '.join(changed)})"
    return f"reproduced within tolerances: bytes differ (outputs: {outs}), {why}; all {compared} metrics are close"


def different_files(committed: Path, made: Path) -> list[str]:
    """Files under BYTES whose bytes differ, or that one of the two folders lacks."""
    names = {str(file.relative_to(folder)) for folder in (committed, made) for file in _files(folder)}
    return sorted(name for name in names if _bytes(committed / name) != _bytes(made / name))


def different_outs(committed: Path, made: Path) -> list[str]:
    """Outputs whose hashes differ between two dvc.lock files."""
    locks = []
    for file in (committed, made):
        stages = parse_lock(_bytes(file) or b"").values()
        locks.append({path: digest for stage in stages for path, digest in stage["outs"].items()})
    return sorted(path for path in {**locks[0], **locks[1]} if locks[0].get(path) != locks[1].get(path))


def compare_metrics(committed: Path, made: Path) -> tuple[int, list[str]]:
    """How many metrics were compared between two folders of details; which are further apart than their tolerance."""
    before, after = flat_metrics(committed), flat_metrics(made)
    compared, off = 0, []
    for name in sorted({**before, **after}):
        tolerance = next((value for pattern, value in TOLERANCES.items() if fnmatch.fnmatchcase(name, pattern)), None)
        if tolerance is None:
            continue
        compared += 1
        one, other = before.get(name), after.get(name)
        if one is None or other is None or abs(one - other) > tolerance:
            off.append(f"{name} {one} and {other} (may differ by {tolerance:g})")
    return compared, off


def flat_metrics(folder: Path) -> dict[str, float]:
    """Every number in a folder of JSON files: "evaluate.ppo.gold" -> 4.7."""
    found: dict[str, float] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = value

    for file in sorted(folder.glob("*.json")):
        add(file.stem, read_json(file))
    return found


def fingerprint(params: Params) -> dict[str, str]:
    """What the last digits of results depend on: processor, threads, device, versions."""
    from minirlhf.runtime.device import choose_device

    device = choose_device(params.device)
    if device == "cuda":
        import torch

        device = f"cuda: {torch.cuda.get_device_name()}"
    machine = {
        "processor": "any x86-64 with AVX2" if params.arithmetic == "portable" else processor.name(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": str(params.threads),
        "launch": params.launch,
        "device": device,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    for package in PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            continue
    return machine


def _machine(root: Path) -> dict | None:
    return read_json(root / MACHINE) if (root / MACHINE).exists() else None


def _isolate(clone: Path, root: Path) -> None:
    """Nothing computed before is at hand in the clone; what only the user's folder has is."""
    (clone / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n    type = copy\n")
    for name in OWN:
        if (root / name).is_dir():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(root / name, clone / name)


def _files(folder: Path) -> list[Path]:
    return [file for pattern in BYTES for file in folder.glob(pattern) if file.is_file() and file.name != ".gitignore"]


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _copy(source: Path, target: Path) -> None:
    for file in _files(source):
        (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.relative_to(source))
