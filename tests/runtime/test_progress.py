import sys

from minirlhf.runtime import progress


def test_without_a_terminal_a_line_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 4.0, 12.0, 12.0, 12.0, 15.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress(total=100, unit="episodes", desc="ppo") as bar:
        bar.start_at(10)
        bar.update(6)  # at 4 s: too early
        bar.update(6, reward=0.5)  # at 12 s: 12 episodes of this run in 12 s, 78 left
        bar.update(1)  # at 15 s: too early again
    assert capsys.readouterr().err == "ppo: 22/100 episodes, 1 episodes/s, 1:18 left, reward 0.5\n"


def test_on_a_terminal_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress(total=2, unit="steps", desc="sft") as bar:
        bar.update(2, loss=1.0)
    assert "sft" in capsys.readouterr().err
