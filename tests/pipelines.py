"""A small pipeline to try dvc on: a copy of this checkout with shrunken settings, and dvc and git to call there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from minirlhf.evaluation.seeds import COLUMNS
from minirlhf.runtime.files import write_csv

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["source", "prepare", "sft", "collect", "reward", "ppo", "evaluate", "report"]
SMALL = {
    "data": {"max_posts": 64, "max_comparisons": 32, "max_validation": 8, "max_test": 24},
    "sft": {"steps": 2, "batch_size": 8, "micro_batch_size": 4, "eval_every": 1, "log_every": 1},
    "reward": {"steps": 2, "batch_size": 8, "micro_batch_size": 4, "eval_every": 1, "log_every": 1},
    "collect": {"posts": 8},
    "ppo": {"episodes": 16, "batch_size": 8, "minibatches": 1, "micro_batch_size": 8, "rollout_batch_size": 8,
            "eval_every": 1, "snapshot_every": 1},
    "evaluate": {"bootstrap": 50, "best_of_n": 2, "frontier_posts": 8},
}  # fmt: skip


def dvc(folder: Path, *command: str, fails: bool = False, under: tuple[str, ...] = ()) -> str:
    """Run dvc there (`under` nice, for one) with this very Python first on the path; returns what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*under, sys.executable, "-m", "dvc", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(printed: str) -> list[str]:
    """The stages that really ran, in order."""
    return re.findall(r"^Running stage '([\w@]+)'", printed, re.MULTILINE)


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


def change(folder: Path, settings: dict) -> None:
    """Change settings of params.yaml."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, values in settings.items():
        if isinstance(values, dict):
            params[section].update(values)
        else:
            params[section] = values
    yaml.dump(params, folder / "params.yaml")


def copy_checkout(folder: Path) -> None:
    """A committed copy of this checkout, without its results, on shrunken settings."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    results = ("metrics/", "plots/", "results/", "dvc.lock", "tests/")
    for name in listed.splitlines():
        if not name.startswith(results) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "profiles" / "embedded.yaml", folder / "params.yaml")
    change(folder, SMALL)
    write_csv(folder / "metrics" / "seeds.csv", [], list(COLUMNS))  # as before any `minirlhf seeds`
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")


def run_small_pipeline(folder: Path) -> str:
    """Make such a copy there and run it; returns what `dvc repro` printed."""
    copy_checkout(folder)
    printed = dvc(folder, "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "results")
    return printed


def fresh_clone(source: Path, target: Path, config: str) -> Path:
    """What a colleague gets by git alone, with these lines in DVC's config of that clone."""
    git(source.parent, "clone", "-q", str(source), str(target))
    (target / ".dvc" / "config.local").write_text(config)
    return target


# In the place of a stage's script: what the stage made before, and one number that follows PPO's settings and seed.
STAND_IN = """
import json, shutil
from pathlib import Path
from ruamel.yaml import YAML

shutil.copytree("kept/{stage}", ".", dirs_exist_ok=True)
number = Path("models/ppo/number.txt")
if "{stage}" == "ppo":
    params = YAML(typ="safe").load(Path("params.yaml"))
    number.parent.mkdir(parents=True)
    number.write_text(str(params["ppo"]["kl_coef"] + (params["ppo_seed"] or params["seed"])))
else:
    for name in ("metrics/evaluate.json", "details/evaluate.json"):
        metrics = json.loads(Path(name).read_text())
        metrics["ppo"]["gold"] = float(number.read_text())
        Path(name).write_text(json.dumps(metrics))
"""


def use_stand_ins(folder: Path) -> None:
    """Let the two slowest stages of a pipeline that has been run take no time, and commit that."""
    pipeline = YAML(typ="safe").load(folder / "dvc.yaml")
    for stage in ("ppo", "evaluate"):
        made = [out for out in pipeline["stages"][stage]["outs"] if out.startswith("details/")]
        for path in [*made, f"metrics/{stage}.json"]:
            (folder / "kept" / stage / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / path, folder / "kept" / stage / path)
        (folder / "stages" / f"{stage}.py").write_text(STAND_IN.format(stage=stage))
    dvc(folder, "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "stand-ins")
