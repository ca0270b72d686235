import json
import subprocess
import sys
import time
import warnings
from argparse import ArgumentParser

import psutil
import pytest
import torch

from minirlhf.commands import bench, bench_parts
from minirlhf.commands.bench_parts import Part, Results, run_part
from minirlhf.commands.bench_table import COLUMNS, TRL_PPO, describe_checks, describe_machine, line, row
from minirlhf.commands.bench_work import WORKS
from minirlhf.commands.cli import command
from minirlhf.models import products
from minirlhf.runtime.errors import UserError

TINY = WORKS["tiny"]
MACHINE = {"device": "cpu", "name": "A processor", "arithmetic": "native", "torch": "2", "threads": 1, "ended": "done"}
MACHINE |= {"precisions": ["fp32"], "flops": {"fp32": 1e9}}
OURS = {"work": "tiny", "trainer": "MiniRLHF PPO", "precision": "fp32", "separate_critic": False, "ended": "done"}
OURS |= {"episodes": 8, "seconds": [9.0, 4.0, 4.0], "peak_gb": 2.5}
THEIRS = OURS | {"trainer": TRL_PPO, "separate_critic": True, "seconds": [9.0, 8.0, 16.0], "peak_gb": 5.0}
SAYS = "print('{\"a\": 1}', flush=True)\nprint('words')\nprint('{\"a\": 2}', flush=True)\n"


def python(code):
    return [sys.executable, "-c", code]


def test_a_part_says_its_last_report_and_how_it_ended():
    assert run_part(python(SAYS), 60) == {"a": 2, "ended": "done"}
    assert run_part(python(SAYS + "raise KeyError('x')"), 60) == {"a": 2, "ended": "KeyError: 'x'"}
    assert run_part(python("import os; os.kill(os.getpid(), 9)"), 60) == {"ended": "ended by signal 9"}
    assert run_part(python("raise SystemExit(3)"), 60) == {"ended": "exit code 3"}
    assert run_part(["/no/such/python"], 60)["ended"].startswith("cannot be run")


def test_at_its_deadline_a_part_is_ended_and_keeps_what_it_said(tmp_path):
    said = tmp_path / "said"
    code = f"{SAYS}import pathlib, time; pathlib.Path({str(said)!r}).touch(); time.sleep(600)"
    started = time.monotonic()
    assert run_part(python(code), 10) == {"a": 2, "ended": "deadline of 10 s"}
    assert said.exists() and time.monotonic() - started < 300


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end it")
def test_a_part_ends_with_the_command(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = "import sys\nfrom minirlhf.commands.bench_parts import run_part\n"
    code += f"run_part([sys.executable, '-c', {child!r}], 600)"
    parent = subprocess.Popen(python(code))
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    psutil.wait_procs([process], timeout=60)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A part that writes a line to a file each time it runs."""
    monkeypatch.setattr(bench_parts, "SCRIPTS", tmp_path)
    (tmp_path / "part.py").write_text(f"import sys\nopen({str(tmp_path / 'ran')!r}, 'a').write(sys.argv[1])\n{SAYS}")
    return lambda name: Part(name, sys.executable, "part.py", (name,), {"work": "tiny"})


def test_results_are_written_as_they_come_and_kept_on_resuming(tmp_path, script):
    file = tmp_path / "bench.json"
    results = Results(file, resume=False)
    results.run(script("a"))
    assert [part["part"] for part in json.loads(file.read_text())["parts"]] == ["a"]
    results.run(script("b"))
    again = Results(file, resume=True)
    again.run(script("c"))
    assert [part["part"] for part in json.loads(file.read_text())["parts"]] == ["c", "a", "b"]  # a kill here loses none
    assert again.run(script("a")) == {"part": "a", "arguments": ["a"], "work": "tiny", "a": 2, "ended": "done"}
    assert (tmp_path / "ran").read_text() == "abc"
    again.run(script("b"), again=True)
    assert (tmp_path / "ran").read_text() == "abcb"
    with pytest.raises(UserError, match="none.json is not there"):
        Results(tmp_path / "none.json", resume=True)


def test_without_time_left_a_part_is_not_run(tmp_path, script):
    results = Results(tmp_path / "bench.json", resume=False)
    results.minutes = 0
    assert results.run(script("a"))["ended"] == "no time left"
    assert not (tmp_path / "ran").exists()


def test_multiply_adds_of_an_episode_by_hand():
    trunk, head = 20 * 2 * 12 * 2 * 32**2 + 2 * 2 * 32 * 20**2, 8 * 2 * 32 * 64
    shared, separate = TINY.flops(separate_critic=False), TINY.flops(separate_critic=True)
    assert shared == {"sample": trunk + head, "score": 2 * trunk + head, "learn": 2 * 3 * (trunk + head)}
    assert separate == {"sample": trunk + head, "score": 3 * trunk + head, "learn": 2 * 3 * (2 * trunk + head)}


def test_a_row_by_hand():
    phases = [{"sample": 9, "score": 9, "learn": 9}, *2 * [{"sample": 1, "score": 1, "learn": 2}]]
    found = row(TINY, [OURS | {"phases": phases}], [THEIRS], MACHINE)
    assert found["episodes/s"] == 2.0 and found["tokens/s"] == 40.0  # the first update warms up
    assert found["times TRL PPO"] == 3.0 and found["of TRL PPO's"] == 0.5
    assert found["hours for 1,000,000 episodes"] == pytest.approx(1e6 / 2 / 3600)
    flops = TINY.flops(False)
    assert found["share of peak"] == pytest.approx(2 * sum(flops.values()) / 1e9)
    assert found["learning"] == pytest.approx(2 * 8 * flops["learn"] / 4 / 1e9)
    assert line(found).startswith("| tiny | MiniRLHF PPO | fp32 | 2 | 40 | 3 | 2.5 | 0.5 | ")


def test_figures_are_medians_over_rounds_and_ratios_those_within_a_round():
    reports = [OURS | {"seconds": [0, seconds]} for seconds in (1.0, 4.0, 2.0)]
    theirs = [THEIRS | {"seconds": [0, seconds]} for seconds in (2.0, 4.0, 8.0)]
    found = row(TINY, reports, theirs, MACHINE)
    assert found["episodes/s"] == 4.0 and found["times TRL PPO"] == 2.0


def test_a_row_of_which_little_is_known_says_why():
    found = row(TINY, [{**OURS, "seconds": [], "ended": "deadline of 3 s"}], [], MACHINE)
    assert line(found) == "| tiny | MiniRLHF PPO | fp32 |" + " - |" * (len(COLUMNS) - 4) + " deadline of 3 s |"
    found = row(TINY, [{**OURS, "seconds": [2.0], "ended": "deadline of 3 s"}], [], MACHINE)
    assert found["episodes/s"] == 4.0 and found["note"] == "deadline of 3 s, the first update alone"


def test_the_peak_of_a_gpu_is_its_data_sheets():
    gpu = MACHINE | {"device": "cuda", "name": "NVIDIA H100 80GB HBM3", "flops": {"bf16": 7e14}}
    found = row(TINY, [OURS | {"precision": "bf16"}], [], gpu)
    assert found["share of peak"] == pytest.approx(2 * sum(TINY.flops(False).values()) / 989e12)


def test_a_wrong_rule_is_named():
    products = [{"shape": "8 x 2 x 3", "pass": "forward", "by_rule": "onednn", "times_the_other": 0.5}]
    assert "is wrong here for 8 x 2 x 3 (forward)." in describe_machine(MACHINE | {"products": products})
    products[0]["times_the_other"] = 0.95
    assert "is right here." in describe_machine(MACHINE | {"products": products})


def test_checks_in_words():
    checks = {"ratio_error": 1e-6, "same_bytes_twice": False, "same_bytes_after_a_kill": "KeyError: 1"}
    told = describe_checks(checks | {"not_deterministic": ["cumsum"], "ended": "deadline of 3 s"})
    for words in (
        "ratio, which should be 1: 1e-06",
        "same bytes: NO",
        "same bytes: KeyError: 1",
        "loop does, in fp32: not known",
        "implementation: cumsum",
        "checks not finished: deadline of 3 s",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trl-python", "/no/such"], "--trl-python"),
        (["--processor-time"], "--threads 1"),
        (["--resume"], "not there"),
    ],
)
def test_what_cannot_be_is_said_at_once(options, told, tmp_path):
    parser = ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(UserError, match=told):
        bench.run(parser.parse_args([*options, "--output", str(tmp_path / "bench.json")]))


def test_results_of_another_machine_are_not_gone_on_with(tmp_path, monkeypatch):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"parts": [MACHINE | {"part": "machine", "name": "Another"}]}))
    monkeypatch.setattr(bench_parts, "run_part", lambda command, seconds: MACHINE)
    parser = ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(UserError, match="of name Another, not A processor"):
        bench.run(parser.parse_args(["--resume", "--output", str(file)]))


def test_the_whole_command(tmp_path, monkeypatch, capsys):
    """The real scripts on the tiny work; but for the machine's speed, and TRL's Python, which has none."""
    real = bench_parts.run_part
    monkeypatch.setattr(
        bench_parts,
        "run_part",
        lambda command, *rest: MACHINE if "arithmetic.py" in command[1] else real(command, *rest),
    )
    (tmp_path / "python").write_text("#!/bin/sh\necho no TRL here >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    options = [
        "--work",
        "tiny",
        "--steps",
        "1",
        "--threads",
        "1",
        "--no-online",
        "--output",
        str(tmp_path / "bench.json"),
    ]
    command(["bench", *options, "--trl-python", str(tmp_path / "python")])
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert found == json.loads((tmp_path / "bench.json").read_text())
    checks = found["parts"][1]
    assert checks["ended"] == "done" and checks["ratio_error"] < 1e-5 and checks["not_deterministic"] == []
    for check in ("same_samples_as_the_loop", "same_bytes_twice", "same_bytes_after_a_kill"):
        assert checks[check] is True
    theirs, *ours = found["rows"]
    assert theirs["note"] == "no TRL here" and theirs["episodes/s"] is None
    assert [each["trainer"] for each in ours] == ["MiniRLHF PPO", "MiniRLHF PPO, separate critic"]
    assert all(each["note"] == "" and min(each["episodes/s"], each["sampling"], each["scoring"]) > 0 for each in ours)
    assert said.count("\n| tiny | ") == 3


@pytest.mark.parametrize("rule", ["onednn", "pytorch"])
def test_the_library_of_the_rule_is_timed_against_the_other(rule, monkeypatch):
    monkeypatch.syspath_prepend(str(bench_parts.SCRIPTS))
    import arithmetic

    monkeypatch.setattr(products, "PRODUCTS", rule)
    monkeypatch.setattr(arithmetic, "seconds", lambda function, *rest: 2.0 if function is arithmetic.by_onednn else 1.0)
    found = arithmetic.compare((4, 8, 16), learns=True)
    expected = {"onednn": 0.5, "pytorch": 2.0}[rule]
    assert found == {
        "shape": "4 x 8 x 16",
        "pass": "forward and backward",
        "by_rule": rule,
        "times_the_other": expected,
    }


def test_both_libraries_make_the_same_product(monkeypatch):
    monkeypatch.syspath_prepend(str(bench_parts.SCRIPTS))
    import arithmetic

    tensors = torch.randn(4, 8), torch.randn(16, 8), torch.randn(16)
    torch.testing.assert_close(arithmetic.by_onednn(*tensors), torch.nn.functional.linear(*tensors))
    assert arithmetic.compare((4, 8, 16), learns=False)["times_the_other"] > 0


def test_an_operation_that_prevents_the_same_bytes_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(bench_parts.SCRIPTS))
    import checks

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        torch.use_deterministic_algorithms(False)
    assert [name for each in seen for name in checks.not_deterministic(str(each.message))] == ["put_"]
    assert checks.not_deterministic("another warning") == []


def test_wheels_are_those_of_the_lock_and_both_of_trls():
    script = bench_parts.SCRIPTS / "wheels.py"
    told = subprocess.check_output([sys.executable, script, "wheels", "--list"], text=True).splitlines()
    lock = (bench_parts.ROOT / "requirements.lock").read_text().splitlines()
    ours = [line.removeprefix("ours: ") for line in told if line.startswith("ours: ")]
    assert {line for line in lock if line.startswith(("trl==", "pydantic=="))} <= set(ours)
    assert "trl112: trl==1.12.0" in told
