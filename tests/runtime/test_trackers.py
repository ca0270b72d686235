"""Each tracker gets figures and tables by its own package, without account and network; skipped where it is missing."""

import json
import os
import subprocess
import sys

import pytest

from minirlhf.runtime import trackers
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.trackers import Trackers
from minirlhf.settings.params import parse_params
from tests.pipelines import ROOT

SETTINGS = {"seed": 1, "ppo": {"kl_coef": 0.05, "lora": None}}
SAMPLES = [{"prompt": "a | b\nc", "response": "my cat left.", "reward": 0.5, "ended": True}]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DVC_EXP_NAME", "brave-cat")
    return tmp_path


def tell(name: str) -> None:
    with Trackers("ppo", (name,), SETTINGS) as told:
        told.log({"reward": 0.25, "kl": 1.5}, step=1)
        told.table("samples", SAMPLES, step=1)
        told.log({"reward": 0.5}, step=2)


def test_tensorboard(here):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell("tensorboard")
    events = EventAccumulator(str(here / "runs" / "ppo-brave-cat"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("ppo/reward")] == [(1, 0.25), (2, 0.5)]
    [table] = events.Tensors("ppo/samples/text_summary")
    assert "| a \\| b<br>c | my cat left. | 0.5 | True |" in table.tensor_proto.string_val[0].decode()
    assert "ppo.kl_coef: 0.05" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_mlflow(here, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell("mlflow")
    [run] = mlflow.search_runs(experiment_names=["minirlhf"], output_format="list")
    assert run.info.run_name == "ppo-brave-cat" and run.info.status == "FINISHED"
    assert run.data.params == {"seed": "1", "ppo.kl_coef": "0.05", "ppo.lora": "null"}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "ppo/reward")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    table = mlflow.load_table("ppo/samples.json", run_ids=[run.info.run_id])
    assert table["response"].tolist() == ["my cat left."] and table["step"].tolist() == [1]
    assert {path.name for path in here.iterdir()} == {"runs"}


@pytest.fixture
def wandb():
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads the environment once a process
    return wandb


def test_wandb_offline(here, monkeypatch, wandb):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell("wandb")
    [run] = (here / "runs" / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))[0].stat().st_size > 0
    [table] = run.rglob("*.table.json")
    assert json.loads(table.read_text())["data"] == [["a | b\nc", "my cat left.", 0.5, True]]


def test_wandb_without_a_login_is_one_line(here, monkeypatch, wandb):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(here / "none"))
    monkeypatch.setenv("HOME", str(here))
    with pytest.raises(UserError, match="trackers: wandb did not start: .*(API key|api_key|login)"):
        tell("wandb")


def test_trackio(here):
    """In a process of its own: trackio reads where it keeps things when it is imported."""
    pytest.importorskip("trackio")
    code = (
        "from tests.runtime.test_trackers import tell; import trackio; tell('trackio')\n"
        "print(*[run.name for run in trackio.Api().runs('minirlhf')])"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(here / "trackio"), "PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=here, env=environment, text=True)
    assert "ppo-brave-cat" in printed.splitlines() and list((here / "trackio").glob("minirlhf*"))


def test_only_the_first_process_writes(here, monkeypatch):
    monkeypatch.setitem(trackers.KINDS, "wandb", lambda *arguments: pytest.fail("a second run"))
    monkeypatch.setenv("RANK", "1")
    assert not Trackers("ppo", ("wandb",), SETTINGS)
    assert not list(here.iterdir())


def test_one_that_is_not_installed_is_named_when_the_params_are_read(settings, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    settings["trackers"] = ["wandb"]
    with pytest.raises(UserError) as caught:
        parse_params(json.dumps(settings), "params.yaml")
    line = "trackers: wandb is not installed: pip install wandb (or take it out of the list) (params.yaml)"
    assert str(caught.value) == line
    settings["trackers"] = ["comet"]
    with pytest.raises(UserError, match="one of tensorboard, wandb, mlflow, trackio, got 'comet'"):
        parse_params(json.dumps(settings), "params.yaml")


def test_no_secret_is_written(here, monkeypatch, wandb):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    tell("wandb")
    kept = [path for path in here.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if os.environ["WANDB_API_KEY"].encode() in path.read_bytes()]
