import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from minirlhf.commands import cli
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, write_csv
from minirlhf.runtime.trackers import KINDS, Trackers
from minirlhf.training import live

ROOT = Path(__file__).parents[2]
ROWS = [{"step": 1, "train_loss": 0.9, "eval_loss": None}, {"step": 2, "train_loss": 0.8, "eval_loss": 0.7}]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_curves_are_written_now_and_then(here, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    on_row = live.live(here / "details/sft.csv", Trackers("sft", (), {}))
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


def test_a_tracker_gets_every_figure_once(here, monkeypatch):
    told = []
    fake = SimpleNamespace(log=lambda figures, step: told.append((figures, step)), finish=lambda: None)
    monkeypatch.setitem(KINDS, "tensorboard", lambda *_: fake)
    on_row = live.live(here / "a.csv", Trackers("sft", ("tensorboard",), {}))
    first = {"step": 1, "train_loss": 0.9, "eval_loss": None}
    on_row([first])
    first["eval_loss"] = 0.8  # comes a little later, in the same row
    on_row([first])
    on_row([first, {"step": 2, "train_loss": 0.7, "eval_loss": None}])
    assert told == [({"sft/train_loss": 0.9}, 1), ({"sft/eval_loss": 0.8}, 1), ({"sft/train_loss": 0.7}, 2)]
