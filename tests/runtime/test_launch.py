"""Several processes: what the params may say, how batches are dealt out, and `dvc repro` with two of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, read_json, write_json, write_jsonl
from minirlhf.runtime.processes import Processes
from minirlhf.settings.params import parse_params
from minirlhf.settings.training import accumulation_steps
from tests.conftest import SOAK
from tests.pipelines import ROOT, change, dvc, ran
from tests.training import two_trainers

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.mark.parametrize(
    "command",
    [
        "python",
        "torchrun --standalone --nproc_per_node 2",
        "torchrun --nnodes=2 --node_rank=0 --nproc_per_node=8 --master_addr=10.0.0.1 --master_port=29500",
        "torchrun --nnodes 2 --rdzv_backend c10d --rdzv_endpoint host-1.local:29400 --rdzv_id 7",
        "accelerate launch",
        "accelerate launch --multi_gpu --num_processes 4",
        "accelerate launch --config_file configs/two_hosts.yaml --machine_rank 1",
    ],
)
def test_launchers_are_accepted(settings, command):
    assert parse_params(json.dumps(settings | {"launch": command}), "params.yaml").launch == command


@pytest.mark.parametrize(
    "command",
    ["", " ", "python ", "python -c pass", "python3", "bash", "accelerate", "accelerate config", "torchrunner",
     "torchrun  --standalone", "torchrun ", " torchrun", "torchrun --nproc_per_node 2; true", "torchrun | tee log",
     "torchrun & true", "torchrun `id`", "torchrun $(id)", "torchrun $HOME", "torchrun\ntrue", "torchrun --a\n",
     "torchrun > log", "torchrun 'a'", 'torchrun "a"', "torchrun \\", "torchrun {a,b}", "torchrun *", "torchrun ~/a",
     "torchrun ${seed}", "torchrun #", "OMP_NUM_THREADS=1 torchrun"],
)  # fmt: skip
def test_what_is_no_launcher_or_means_something_to_a_shell_is_refused(settings, command):
    with pytest.raises(UserError) as caught:
        parse_params(json.dumps(settings | {"launch": command}), "params.yaml")
    assert str(caught.value) == (
        "launch: expected python, or torchrun or accelerate launch with options (words of letters, digits and "
        f"_./:=,+-, one space between them), got {command!r} (params.yaml)"
    )


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "processes", "steps"),
    [(32, 8, 1, 4), (32, 8, 2, 2), (32, 8, 4, 1), (6, 1, 3, 2), (32, 8, 3, None), (32, 8, 8, None), (8, 8, 2, None)],
)
def test_batches_are_whole_steps_of_all_processes(monkeypatch, batch_size, micro_batch_size, processes, steps):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    section = SimpleNamespace(batch_size=batch_size, micro_batch_size=micro_batch_size)
    if steps is not None:
        assert accumulation_steps("sft", section) == steps
        return
    together = micro_batch_size * processes
    expected = (
        f"sft.batch_size: {batch_size} is no multiple of micro_batch_size x processes "
        f"({micro_batch_size} x {processes} = {together})"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        accumulation_steps("sft", section)


def test_a_launcher_that_starts_one_process_is_noticed(capsys):
    Processes("cpu").announce("sft", "python")
    assert capsys.readouterr().err == ""
    Processes("cpu").announce("sft", "accelerate launch --num_processes 2")
    assert capsys.readouterr().err == "sft: 1 process\n"


def test_batches_that_do_not_divide_are_one_line_of_the_first_process(settings, tmp_path):
    settings["sft"] |= {"batch_size": 8, "micro_batch_size": 8}
    write_json(tmp_path / "params.yaml", settings)
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"prompt": "a", "completion": "b"}])
    stage = [ROOT / "stages" / "sft.py", "--params", tmp_path / "params.yaml", "--posts", tmp_path]
    done = subprocess.run([sys.executable, *TORCHRUN, *stage], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    assert lines == ["error: sft.batch_size: 8 is no multiple of micro_batch_size x processes (8 x 2 = 16)"]


def test_an_error_of_another_process_alone_names_it():
    code = (
        "from minirlhf.runtime import errors, stage\n"
        "stage.GRACE = 0\n"
        "def main(): raise errors.UserError('no file')\n"
        "stage.run(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: process 1: no file\n")


# The two trainers


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_models, make_settings):
    """What two_trainers.py found in one process and in two."""
    folder = tmp_path_factory.mktemp("trainers")
    model = folder / "model"  # without dropout, whose random numbers each process draws for itself
    shutil.copytree(tiny_models / "sft", model)
    write_json(model / "config.json", read_json(model / "config.json") | dict.fromkeys(
        ("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0))  # fmt: skip
    settings = make_settings()
    for stage in ("sft", "reward"):
        # 8 posts by 2 in 2 processes: an epoch ends with its second step, and the stop is in the middle of one.
        settings[stage] |= {"steps": 3, "batch_size": 4, "micro_batch_size": 1, "eval_every": 1}
    write_json(folder / "params.json", settings)
    for name in ("one", "two"):
        (folder / name).mkdir()
    two_trainers.main(folder / "one", str(model), str(folder / "params.json"))
    script = [two_trainers.__file__, str(folder / "two"), str(model), str(folder / "params.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *TORCHRUN, *script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "shards" not in line)[:5000]
    return [[read_json(file) for file in sorted((folder / name).glob("rank*.json"))] for name in ("one", "two")]


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_two_processes_train_as_one(trained, stage):
    [one], two = trained
    assert one["world_size"] == 1 and [each["world_size"] for each in two] == [2, 2]
    assert two[0]["digests"] == two[1]["digests"]
    first, second = (each[stage] for each in two)
    assert first["told"] > 0 and second["told"] == 0  # of the curves
    assert [row["step"] for row in first["history"]] == [1, 2, 3]
    for ours, theirs in zip(first["history"], one[stage]["history"], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)
    for name, expected in one[stage]["weights"].items():
        expected, actual = torch.tensor(expected), torch.tensor(first["weights"][name])
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_two_processes_go_on_where_they_were_stopped(trained, stage):
    for each in trained[1]:
        assert each[f"{stage}_again"]["kept"].count("model.safetensors") == 1
        assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(each[f"{stage}_again"]["kept"])
        assert each["digests"][f"{stage}_again"] == each["digests"][stage]
        assert each[f"{stage}_again"]["history"] == each[stage]["history"]


# The pipeline


def names(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*")}


def test_dvc_runs_the_training_stages_in_two_processes(clone, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(clone[0], folder)
    change(folder, {"launch": "torchrun --standalone --nproc_per_node 2"})
    stages = ["sft", "reward"] + ["ppo"] * SOAK  # in two processes ppo is tested in tests/ppo/test_processes.py, too
    printed = dvc(folder, "repro", stages[-1])
    assert ran(printed) == ["source", *stages]
    for stage in stages:
        assert printed.count(f"> torchrun --standalone --nproc_per_node 2 stages/{stage}.py\n") == 1
        assert printed.count(f"{stage}: 2 processes\n") == 1
        assert not list((folder / ".resume" / stage).iterdir())
    for name in ("models", "data"):
        assert names(folder / name) == names(clone[0] / name)
    # The same batches, and so the same results but for the order of sums.
    for stage in ("sft", "reward"):
        one, two = (read_csv(each / "details" / f"{stage}.csv") for each in (clone[0], folder))
        assert [row["step"] for row in two] == [1, 2]
        for ours, theirs in zip(two, one, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
    losses = [read_json(each / "details" / "sft.json")["sft_eval_loss"] for each in (clone[0], folder)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    if SOAK:
        assert len(read_csv(folder / "details" / "ppo.csv")) == len(read_csv(clone[0] / "details" / "ppo.csv"))
