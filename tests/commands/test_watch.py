import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minirlhf.commands import cli
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, write_csv
from minirlhf.training import live

ROOT = Path(__file__).parents[2]
QUIET = SimpleNamespace(tensorboard=False)
ROWS = [{"step": 1, "train_loss": 0.9, "eval_loss": None}, {"step": 2, "train_loss": 0.8, "eval_loss": 0.7}]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_curves_are_written_now_and_then(here, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    on_row = live.live("sft", here / "details/sft.csv", QUIET)
    on_row(ROWS[:1])
    now[0] += 1
    on_row(ROWS)
    assert read_csv("details/sft.csv") == [{"step": 1, "train_loss": 0.9, "eval_loss": None}]
    now[0] += 1
    on_row(ROWS)
    assert read_csv("details/sft.csv") == ROWS


def test_the_newest_curves_are_shown_also_of_an_experiment(here, capsys):
    with pytest.raises(UserError, match="no curves yet"):
        cli.command(["watch"])
    write_csv("details/sft.csv", ROWS)
    inside = here / ".dvc/tmp/exps/standalone/tmp1/details/ppo.csv"
    write_csv(inside, [{"update": n, "episodes": 64 * n, "reward": n / 10, "eval_kl": None} for n in range(20)])
    os.utime("details/sft.csv", (1, 1))
    cli.command(["watch"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(inside.relative_to(here)))
    assert lines[1].split() == ["episodes", "reward"] and lines[-1].split() == ["1216", "1.9"] and len(lines) == 12
    os.utime(inside, (0, 0))
    cli.command(["watch"])
    assert capsys.readouterr().out.splitlines()[2:] == ["   1         0.9           ", "   2         0.8        0.7"]


def test_tensorboard_is_asked_for_in_one_line(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    with pytest.raises(UserError, match="tensorboard: true needs the package: pip install tensorboard"):
        live.live("sft", here / "a.csv", SimpleNamespace(tensorboard=True))


def test_tensorboard_gets_every_figure_once(here, monkeypatch):
    told = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: told.append(scalar), flush=lambda: None)
    fake = SimpleNamespace(SummaryWriter=lambda folder: told.append(folder.parts[-3:-1]) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    on_row = live.live("sft", here / "a.csv", SimpleNamespace(tensorboard=True))
    first = {"step": 1, "train_loss": 0.9, "eval_loss": None}
    on_row([first])
    first["eval_loss"] = 0.8  # comes a little later, in the same row
    on_row([first])
    on_row([first, {"step": 2, "train_loss": 0.7, "eval_loss": None}])
    losses = [scalar for scalar in told if "loss" in scalar[0]]
    assert losses == [("sft/train_loss", 0.9, 1), ("sft/eval_loss", 0.8, 1), ("sft/train_loss", 0.7, 2)]
