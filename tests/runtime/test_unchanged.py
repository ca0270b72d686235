"""A stage that reads what is edited while it runs fails at its end, and says what it was."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minirlhf.runtime import unchanged
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.resume import resume_folder, saved
from tests.pipelines import ROOT, dvc, git

PIPELINE = """
stages:
  ppo:
    cmd: ${launch} stages/ppo.py
    params: [seed, "${algorithm}", ppo.temperature]
    deps: [library, data/posts.jsonl, models]
"""
PARAMS = "seed: 1\nalgorithm: ppo\nppo: {kl_coef: 0.05, temperature: 1.0}\nevaluate: {bootstrap: 10}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a pipeline of one stage, which runs; the current folder."""
    files = {"dvc.yaml": PIPELINE, "params.yaml": PARAMS, "library/losses.py": "clip = 0.2\n"}
    files |= {"data/posts.jsonl": "{}\n", "models/weights.bin": "0" * 100, "stages/ppo.py": ""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "ppo")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    unchanged.note()
    yield tmp_path
    unchanged._noted.clear()


def write(name, content):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("params.yaml", PARAMS.replace("0.05", "0.2"), "ppo.kl_coef (params.yaml)"),
        ("params.yaml", PARAMS.replace("seed: 1", "seed: 2"), "seed (params.yaml)"),
        ("params.yaml", PARAMS.replace("1.0", "0.7"), "ppo.temperature (params.yaml)"),
        ("library/losses.py", "clip = 0.3\n", "library/losses.py"),
        ("library/new.py", "", "library/new.py"),
        ("data/posts.jsonl", "{}\n{}\n", "data/posts.jsonl"),
        ("models/weights.bin", "1" * 100, "models/weights.bin"),
    ],
)
def test_what_a_stage_depends_on(project, name, content, named):
    unchanged.check()
    write(name, content)
    with pytest.raises(UserError) as caught:
        unchanged.check()
    assert str(caught.value) == (
        f"{named} changed while this stage ran, and its result is of what was before: run the same command again"
    )


def test_what_it_does_not_depend_on_may_change(project):
    write("params.yaml", PARAMS.replace("bootstrap: 10", "bootstrap: 20").replace("seed: 1", "seed: 1  # of all"))
    write("library/__pycache__/losses.pyc", "new")
    write("docs/page.md", "new")
    unchanged.check()
    write("library/losses.py", "clip = 0.3\n")
    write("library/losses.py", "clip = 0.2\n")  # and back
    unchanged.check()


def test_a_large_file_is_known_by_size_and_time(project, monkeypatch):
    monkeypatch.setattr(unchanged, "LARGE", 10)
    unchanged.note()
    os.utime("models/weights.bin", ns=(1, 1))
    with pytest.raises(UserError, match="^models/weights.bin changed"):
        unchanged.check()


def test_what_is_gone_or_half_written_is_named(project):
    Path("library/losses.py").unlink()
    write("params.yaml", "seed: [")
    with pytest.raises(UserError, match="seed .* and 1 more changed while this stage ran"):
        unchanged.check()


def test_a_stage_that_dvc_does_not_run_from_other_inputs_is_let_be(project, monkeypatch):
    monkeypatch.delenv("DVC_STAGE")
    monkeypatch.setattr(sys, "argv", ["stages/ppo.py", "--params", "other.yaml"])
    unchanged.note()
    write("library/losses.py", "")
    unchanged.check()
    monkeypatch.setattr(sys, "argv", ["stages/ppo.py"])  # by hand, from what dvc.yaml names
    unchanged.note()
    write("library/losses.py", "more")
    with pytest.raises(UserError, match="^library/losses.py changed"):
        unchanged.check()


def test_a_stage_that_is_one_of_several_is_known_by_its_item(project, monkeypatch):
    stage = {"params": ["seed", "${algorithm}"], "deps": ["data/${item.after}"]}
    stages = {"stages": {"earlier": {"foreach": "${feedback.rounds}", "do": stage}}}
    write("dvc.yaml", json.dumps(stages))
    write("params.yaml", PARAMS + "feedback: {rounds: [{after: collected}, {after: feedback}]}\n")
    monkeypatch.setenv("DVC_STAGE", "earlier@1")
    unchanged.note()
    write("data/collected/rows.jsonl", "of another round")
    unchanged.check()
    write("data/feedback/rows.jsonl", "new")
    with pytest.raises(UserError, match="^data/feedback/rows.jsonl changed"):
        unchanged.check()
    os.remove("data/feedback/rows.jsonl")
    write(
        "params.yaml", PARAMS.replace("0.05", "0.2") + "feedback: {rounds: [{after: collected}, {after: feedback}]}\n"
    )
    with pytest.raises(UserError, match="^ppo.kl_coef"):
        unchanged.check()


def test_the_resume_state_is_kept_and_named(project):
    with pytest.raises(UserError, match="or undo the change first: it then goes on from update 60$"):
        with resume_folder("ppo", {"seed": 1}, []) as folder:
            (folder / "state").write_text("60")
            saved("update 60")
            write("library/losses.py", "clip = 0.3\n")
    assert (folder / "state").read_text() == "60"
    write("library/losses.py", "clip = 0.2\n")
    with resume_folder("ppo", {"seed": 1}, []) as again:
        assert again == folder and (again / "state").exists()
    assert not folder.exists()


def test_every_stage_looks(project):
    """By `run`, which all of them are started by."""
    code = "from minirlhf.runtime.stage import run\nfrom pathlib import Path\n"
    code += "run(lambda: Path('library/losses.py').write_text('x'))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: library/losses.py changed while this stage ran")
    assert done.stderr.count("\n") == 1


EDITS_ITSELF = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from minirlhf.runtime.resume import resume_folder, saved
from minirlhf.runtime.stage import run

def main():
    params = Path("params.yaml")
    rate = params.read_text()
    with resume_folder("ppo", rate, ["library"]) as folder:
        print("found", sorted(path.name for path in folder.iterdir()))
        (folder / "state").write_text("1")
        saved("update 1")
        Path("out.txt").write_text(rate + Path("library/losses.py").read_text())
        if not Path("edited").exists():  # somebody saves another one
            Path("edited").touch()
            {edit}

run(main)
"""


EDITS = {
    "rate (params.yaml)": 'params.write_text("rate: 2\\n")',
    "library/losses.py": 'Path("library/losses.py").write_text("clip = 0.3\\n")',
}


@pytest.mark.parametrize(
    ("command", "edited"),
    [
        (["repro"], "rate (params.yaml)"),
        (["repro"], "library/losses.py"),
        (["exp", "run", "--temp"], "rate (params.yaml)"),
    ],
)
def test_dvc_records_nothing_of_it_and_runs_it_again(tmp_path, command, edited):
    """The lock would have said that the result of rate 1 is that of rate 2, or of a module as it is after the edit."""
    (tmp_path / "ppo.py").write_text(EDITS_ITSELF.format(root=str(ROOT), edit=EDITS[edited]))
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "losses.py").write_text("clip = 0.2\n")
    stage = {"cmd": "python ppo.py", "params": ["rate"], "deps": ["ppo.py", "library"], "outs": ["out.txt"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"ppo": stage}}))
    (tmp_path / "params.yaml").write_text("rate: 1\n")
    (tmp_path / ".gitignore").write_text("/out.txt\n.resume\n/edited\n")
    git(tmp_path, "init", "-q")
    dvc(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    printed = dvc(tmp_path, *command, fails=True)
    line = f"error: {edited} changed while this stage ran, and its result is of what was before: run the same "
    assert f"{line}command again, or undo the change first: it then goes on from update 1\n" in printed
    assert not (tmp_path / "dvc.lock").exists() and len(list(tmp_path.glob(".resume/ppo/*/state"))) == 1
    if command == ["repro"]:
        assert "found []" in dvc(tmp_path, "repro")  # with the edit: another state
        made = {"rate (params.yaml)": "rate: 2\nclip = 0.2\n", "library/losses.py": "rate: 1\nclip = 0.3\n"}
        assert (tmp_path / "out.txt").read_text() == made[edited]
        assert "didn't change" in dvc(tmp_path, "repro")
    else:
        assert (tmp_path / "params.yaml").read_text() == "rate: 1\n"  # the workspace was let alone


@pytest.mark.parametrize("stage", sorted(path.stem for path in (ROOT / "stages").glob("*.py")))
def test_another_python_without_the_packages_is_one_line(stage, tmp_path):
    """As `.venv/bin/dvc repro` starts where the environment is not on the PATH."""
    started = time.monotonic()
    command = [sys.executable, "-S", str(ROOT / "stages" / f"{stage}.py")]  # -S: without site-packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and time.monotonic() - started < 20
    line = f"error: {sys.executable} has no package filelock: use the environment (source .venv/bin/activate), or make "
    assert done.stderr == f"{line}setup\n"


def test_a_package_that_is_missing_later_is_one_line(tmp_path):
    code = "from minirlhf.runtime.stage import run\ndef main(): import nowhere.at_all\nrun(main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stderr.startswith(f"error: {sys.executable} has no package nowhere: use the environment")
