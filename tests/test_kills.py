"""Nothing is lost when a stage is killed, or DVC, or when the disk or the memory gives out: the real command lines."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_json, write_jsonl
from minirlhf.world import comparisons, posts
from stages import ppo, reward, sft
from tests.conftest import SOAK
from tests.pipelines import ROOT, change, copy_checkout, dvc, git

STAGES = {"sft": sft, "reward": reward, "ppo": ppo}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 40  # of the soak test
soak = pytest.mark.skipif(not SOAK, reason="make soak")
SEED = random.SystemRandom().randrange(2**32)


@pytest.fixture
def rng():
    print(f"random seed {SEED}")  # pytest shows it where a test fails
    return random.Random(SEED)


@pytest.fixture
def prepared(tmp_path, make_settings, tiny_models, monkeypatch):
    """The current folder, with what the training stages read; a resume point at every step."""
    settings = make_settings()
    settings["model"]["base"] = str(tiny_models / "sft")
    settings["data"] |= {"max_prompt_tokens": 512, "max_response_tokens": 8}
    settings["sft"] |= {"steps": 8, "eval_every": 4}
    settings["reward"] |= {"steps": 12, "eval_every": 4}
    settings["ppo"] |= {"episodes": 96, "batch_size": 8, "max_new_tokens": 4, "snapshot_every": 4}
    for split in ("train", "validation", "test"):
        write_jsonl(tmp_path / f"data/prepared/posts/{split}.jsonl", posts(1, split, 8))
        write_jsonl(tmp_path / f"data/prepared/comparisons/{split}.jsonl", comparisons(1, split, 8))
    write_json(tmp_path / "data/sources/base.json", {"kind": "folder"})
    write_json(tmp_path / "data/sources/reward.json", {"kind": "trained"})
    write_json(tmp_path / "params.yaml", settings)
    shutil.copytree(tiny_models / "reward", tmp_path / "models/reward")
    write_json(tmp_path / "models/reward/reward.json", {"format": "concat", "mean": 0.0})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "home"))
    return tmp_path


def inputs(stage: str, tiny_models: Path) -> list[str]:
    """Arguments that make a stage read the tiny SFT model."""
    return [] if stage == "sft" else ["--sft", str(tiny_models / "sft")]


def outputs(folder: Path) -> dict[str, bytes]:
    """The content of every output."""
    files = [
        path for name in ("models", "metrics", "details", "results", "data") for path in (folder / name).rglob("*")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def steps_kept(root: Path, stage: str) -> int:
    """The step, or PPO's update, of a stage's newest resume point; 0: none."""
    newest = 0
    for name, key in (("trainer_state.json", "global_step"), ("state.json", "updates_done")):
        for folder in ("resume", ".resume.*.old"):
            for path in root.glob(f".resume/{stage}/*/{folder}/{name}"):
                with contextlib.suppress(OSError, json.JSONDecodeError):  # just replaced
                    newest = max(newest, json.loads(path.read_text())[key])
    return newest


def default_interrupt() -> None:
    """Ctrl-C is for the child, also where a shell started these tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start():
    """Start dvc in a process group of its own; what it prints goes to `folder.log`. What still runs later is killed."""
    started = []

    def run(folder: Path, *command: str) -> subprocess.Popen:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with open(folder.with_suffix(".log"), "w") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dvc", *command],
                    cwd=folder,
                    env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=default_interrupt,
                )
            )
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        pytest.param("sft", signal.SIGINT, marks=soak),
        ("reward", signal.SIGKILL),
        ("ppo", signal.SIGTERM),
    ],
)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(prepared, tiny_models, capfd, rng, stage, number):
    arguments = inputs(stage, tiny_models)
    before = outputs(prepared)
    STAGES[stage].main(arguments)
    whole = outputs(prepared)
    for name in whole.keys() - before.keys():
        (prepared / name).unlink()
    for name in before:
        (prepared / name).write_bytes(before[name])

    command = [sys.executable, str(ROOT / "stages" / f"{stage}.py"), *arguments]
    seen, wanted = 0, rng.randrange(1, 6)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=default_interrupt) as process:
        while seen < wanted:
            assert process.poll() is None, process.stderr.read()
            seen = max(seen, steps_kept(prepared / "home", stage))
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.send_signal(number)
        assert process.wait(timeout=10) == (-9 if number == signal.SIGKILL else 128 + number)
        printed = process.stderr.read()
    kept = steps_kept(prepared / "home", stage)
    unit = "update" if stage == "ppo" else "step"
    assert kept >= seen
    if number != signal.SIGKILL:
        assert printed.splitlines()[-1].startswith(f"stopped ({number.name}); run the same command again: it goes on")

    capfd.readouterr()
    STAGES[stage].main(arguments)
    assert f"{stage}: goes on from {unit} {kept}\n" in capfd.readouterr().err
    assert outputs(prepared) == whole
    assert list((prepared / "home" / ".resume" / stage).iterdir()) == []
    hidden = {path.name for path in prepared.rglob(".*") if path.name not in (".resume",)}
    assert not hidden


LIGHT = """
import time
from pathlib import Path
from minirlhf.runtime.files import replace_file
from minirlhf.runtime.launch import rank
from minirlhf.runtime.resume import goes_on, resume_folder, saved
from minirlhf.runtime.stage import run

def main():
    while rank() > 0 and not Path("out").exists():  # the others only have to end with the first
        time.sleep(0.05)
    if rank() > 0:
        return
    with resume_folder("light", {}, []) as folder:
        step = int((folder / "step").read_text()) if (folder / "step").exists() else 0
        pause = 0 if step else 0.05  # seconds: the first run is there to be killed, however late that is noticed
        if step:
            goes_on("light", f"step {step}")
        while step < 400:
            step += 1
            time.sleep(pause)
            with replace_file(folder / "step") as file:
                file.write(str(step))
            saved(f"step {step}")
        Path("out").write_text(str(step))

run(main)
"""


# DVC runs a stage in the user's shell: some put it in their own place, others wait for it.
@pytest.mark.parametrize(
    ("launch", "shell"),
    [("python", "/bin/bash"), ("python", "/bin/sh"), ("torchrun --standalone --nproc_per_node 2", "/bin/sh")],
)
def test_no_stage_outlives_a_killed_dvc(tmp_path, monkeypatch, start, rng, launch, shell):
    """A stage without PyTorch, for the sake of time: what ends it is the same in all of them."""
    if not Path(shell).exists():
        pytest.skip(f"needs {shell}")
    monkeypatch.setenv("SHELL", shell)
    (tmp_path / "light.py").write_text(LIGHT)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{light: {{cmd: {launch} light.py, outs: [out]}}}}\n")
    dvc(tmp_path, "init", "-q", "--no-scm")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    process = start(tmp_path, "repro")
    while not (steps := list(tmp_path.glob(".resume/light/*/step"))):
        assert process.poll() is None, tmp_path.with_suffix(".log").read_text()
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    # By argument: the shell of DVC, which not every shell leaves in place, has them all in one.
    lines = [each.cmdline() for each in children]
    assert sum("light.py" in line and "--standalone" not in line for line in lines) == (2 if "2" in launch else 1)
    time.sleep(rng.random())
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    printed = tmp_path.with_suffix(".log").read_text()
    # Of several processes another may notice first and end; torchrun then ends the rest with SIGTERM.
    reasons = r"stopped \((dvc is gone|SIGTERM)\); run the same command again: it goes on from step"
    assert len(re.findall(reasons, printed)) == 1
    kept = int(steps[0].read_text())
    assert f"light: goes on from step {kept}\n" in dvc(tmp_path, "repro")
    assert (tmp_path / "out").read_text() == "400"


# The disk and the memory


@pytest.fixture
def mount(tmp_path):
    """Mount at `tmp_path/NAME`: a function of a name and options; skips where that is not permitted."""
    mounted = []

    def run(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    yield run
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def size_of(folder: Path) -> int:
    """Bytes on the disk, in pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", [pytest.param("sft", marks=soak), pytest.param("reward", marks=soak), "ppo"])
def test_a_disk_that_fills_up_keeps_the_last_resume_point(prepared, tiny_models, monkeypatch, mount, capfd, stage):
    arguments = inputs(stage, tiny_models)
    before = outputs(prepared)
    room = 0
    resume_folder = STAGES[stage].resume_folder

    @contextlib.contextmanager
    def measured(*args):
        nonlocal room
        with resume_folder(*args) as folder:
            yield folder
            room = size_of(folder) + size_of(folder / "resume") // 2

    with monkeypatch.context() as patch:
        patch.setattr(STAGES[stage], "resume_folder", measured)
        STAGES[stage].main(arguments)
    whole = outputs(prepared)
    # Room for one resume point and half of the next, which is written beside it.
    disk = mount("full", "-t", "tmpfs", "-o", f"size={room}", "tmpfs")
    monkeypatch.setenv("DVC_ROOT", str(disk))
    for name in before:
        (prepared / name).write_bytes(before[name])
    with pytest.raises(UserError, match=r"\.resume/.*: cannot be written: .*(No space left|disk is full)"):
        STAGES[stage].main(arguments)
    kept = steps_kept(disk, stage)
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    capfd.readouterr()
    STAGES[stage].main(arguments)
    assert f"{stage}: goes on from {'update' if stage == 'ppo' else 'step'} {kept}\n" in capfd.readouterr().err
    assert outputs(prepared) == whole


@soak
def test_a_full_disk_for_the_outputs_keeps_what_was_learnt(prepared, mount, capfd):
    disk = mount("full", "-t", "tmpfs", "-o", "size=32k", "tmpfs")
    with pytest.raises(UserError, match="full/sft: cannot be written: No space left on device"):
        sft.main(["--output", str(disk / "sft")])
    assert os.listdir(disk) == []
    capfd.readouterr()
    sft.main([])
    assert "sft: goes on from step 7\n" in capfd.readouterr().err


def test_a_read_only_disk_is_named(prepared, tiny_models, mount, monkeypatch):
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy, save_model

    base = str(tiny_models / "sft")
    disk = mount("fixed", "-t", "tmpfs", "-o", "ro", "tmpfs")
    with pytest.raises(UserError, match="fixed/sft: cannot be written: Read-only file system"):
        save_model(disk / "sft", load_policy(base), load_tokenizer(base))
    monkeypatch.setenv("DVC_ROOT", str(disk))
    with pytest.raises(UserError, match=r"fixed/\.resume/sft/\w+: cannot be written: Read-only file system"):
        sft.main([])


@pytest.mark.parametrize("library", ["safetensors", "torch", "transformers"])
def test_a_library_that_finds_the_disk_full_says_so_in_one_line(mount, tiny_models, library):
    import torch
    from safetensors.torch import save_file

    from minirlhf.models.loading import load_policy
    from minirlhf.runtime.files import writing

    disk, large = mount("full", "-t", "tmpfs", "-o", "size=16k", "tmpfs"), {"a": torch.ones(100_000)}
    with pytest.raises(UserError, match="cannot be written: (No space left on device|the disk is full)"), writing(disk):
        if library == "safetensors":
            save_file(large, disk / "a")
        elif library == "torch":
            torch.save(large, disk / "a")
        else:
            load_policy(str(tiny_models / "sft")).save_pretrained(disk)


LIMITED = """
import resource, runpy, sys
import datasets, torch, transformers, trl, trl.trainer.sft_trainer
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@soak
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and an enforced RLIMIT_AS")
def test_too_little_memory_halves_and_ends_in_one_line(prepared, tiny_models):
    """Enough to sample candidates, and not for a training step, of whatever size."""
    settings = json.loads((prepared / "params.yaml").read_text())
    settings["reward"] |= {"batch_size": 512, "micro_batch_size": 512}
    write_json(prepared / "params.yaml", settings)
    write_jsonl(prepared / "data/prepared/comparisons/train.jsonl", comparisons(1, "train", 512))
    command = [sys.executable, "-c", LIMITED, "300", str(ROOT / "stages/reward.py"), *inputs("reward", tiny_models)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "reward: micro_batch_size: out of memory at 512; going on with 256" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert "memory still runs out" in done.stderr.splitlines()[-1]
    assert list((prepared / "home").glob(".resume/reward/*/candidates/train.jsonl"))


# The whole pipeline, by DVC


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of this checkout with prepared data, the same run to its end, and the seconds that took."""
    folder = tmp_path_factory.mktemp("kills") / "clone"
    copy_checkout(folder)
    change(folder, {"resume_minutes": 0, "sft": {"steps": 40}, "reward": {"steps": 40}, "ppo": {"episodes": 320}})
    dvc(folder, "repro", "prepare")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "prepared")
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    started = time.monotonic()
    dvc(whole, "repro")
    return folder, whole, time.monotonic() - started


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(process: subprocess.Popen, rng: random.Random) -> str:
    """One of the ways to end a running `dvc repro`; says which."""
    number = rng.choice(SIGNALS)
    target = rng.choice(("dvc", "stage"))
    if number == signal.SIGINT:  # Ctrl-C reaches the whole group
        os.killpg(process.pid, number)
    else:
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
            victim = children[-1] if target == "stage" and children else psutil.Process(process.pid)
            victim.send_signal(number)
    return f"{number.name} to {target}"


@soak
def test_forty_kills(clone, start, rng):
    prepared, whole, seconds = clone
    kills = 0
    while kills < KILLS:
        folder = prepared.with_name("killed")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        kept = {}
        while True:
            process = start(folder, "repro")
            try:
                process.wait(timeout=rng.uniform(2, 0.5 * seconds) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                seen = {stage: steps_kept(folder, stage) for stage in STAGES}
                how = kill(process, rng)
                kills += 1
                process.wait(timeout=15)
                psutil.wait_procs(left_over(folder), timeout=10)
            printed = folder.with_suffix(".log").read_text()
            assert not left_over(folder)
            assert "Traceback" not in printed or "KeyboardInterrupt" in printed, printed
            for stage, step in kept.items():
                if step and f"Running stage '{stage}'" in printed:
                    went_on = f"{stage}: goes on from {'update' if stage == 'ppo' else 'step'} {step}\n" in printed
                    too_early = steps_kept(folder, stage) == step  # killed before it looked for where to go on
                    assert went_on or too_early, (stage, step, printed)
            if process.returncode == 0:
                break
            kept = {stage: steps_kept(folder, stage) for stage in STAGES}
            done = {stage for stage in STAGES if (folder / "details" / f"{stage}.json").exists()}
            print(f"{kills}: {how}: {kept}")
            assert all(kept[stage] >= seen[stage] for stage in STAGES if stage not in done), (how, seen, kept)
        for name in ("dvc.lock", "metrics", "details", "plots", "results"):
            diff = subprocess.run(["diff", "-r", whole / name, folder / name], capture_output=True, text=True)
            assert diff.returncode == 0, diff.stdout[:1000]
        assert not list(folder.glob("models/.*.tmp")) and not list(folder.glob(".resume/*/*/resume"))


@soak
@pytest.mark.parametrize("way", ["--temp", "--queue"])
def test_experiments_go_on_as_well(clone, start, way):
    prepared, whole, _ = clone
    folder = prepared.with_name(way.strip("-"))
    shutil.copytree(prepared, folder)
    run = ("exp", "run", "--temp", "-n", "first") if way == "--temp" else ("exp", "run", "--run-all")

    def queue(name: str) -> None:
        if way == "--queue":
            dvc(folder, "exp", "run", "--queue", "-n", name)

    queue("first")
    process = start(folder, *run)
    while (seen := steps_kept(folder, "sft")) < 10:
        assert process.poll() is None, folder.with_suffix(".log").read_text()
        time.sleep(0.01)
    stages = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"][-1:] == ["stages/sft.py"]]
    for stage in stages:
        if str(folder) in stage.environ().get("DVC_ROOT", ""):
            stage.kill()
    process.wait(timeout=120)
    assert (kept := steps_kept(folder, "sft")) >= seen
    queue("second")
    process = start(folder, *run[:-1], "second") if way == "--temp" else start(folder, *run)
    process.wait(timeout=600)
    printed = folder.with_suffix(".log").read_text()
    if way == "--queue":
        printed += dvc(folder, "queue", "logs", "second")
    assert f"sft: goes on from step {kept}\n" in printed
    dvc(folder, "exp", "branch", "second", "branch")
    lock = subprocess.check_output(["git", "show", "branch:dvc.lock"], cwd=folder, text=True)
    assert lock == (whole / "dvc.lock").read_text()
