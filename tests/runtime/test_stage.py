import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minirlhf.runtime import stage
from minirlhf.runtime.errors import printable

ROOT = Path(__file__).parents[2]


def test_a_user_error_is_one_line_and_exit_code_1():
    code = (
        "from minirlhf.runtime import stage, errors\n"
        "def main(): raise errors.UserError('no\\x1b[31m\\nfile')\nstage.run(main)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: no\\x1b[31m\\nfile\n"


def test_other_errors_keep_their_traceback():
    code = "from minirlhf.runtime import stage\ndef main(): raise RuntimeError('a defect')\nstage.run(main)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" in result.stderr and result.stderr.endswith("RuntimeError: a defect\n")


def test_printable_leaves_text_of_any_script_alone():
    assert printable("žluťoučký 日本 🙂") == "žluťoučký 日本 🙂"
    assert printable("\ud800\x00") == "\\ud800\\x00"


def test_importing_stage_helpers_imports_no_torch():
    code = "import sys\nfrom minirlhf.runtime import files, progress, stage\n"
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_set_up_seeds_every_generator():
    import random

    import numpy
    import torch

    threads = torch.get_num_threads()

    def draw(seed):
        stage.set_up(seed, threads, "native")
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    try:
        assert draw(3) == draw(3)
        assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_precision_of_the_params_is_no_launchers(tmp_path, monkeypatch):
    """`accelerate launch` sets one, from its options or its config file, and transformers' trainers would follow it."""
    code = "import sys\nfrom minirlhf.runtime.stage import set_up\nset_up(1, 1, 'native')\n"
    code += "from transformers import Trainer, TrainingArguments\nimport torch\n"
    code += "args = TrainingArguments(output_dir=sys.argv[1], use_cpu=True, report_to='none')\n"
    code += "print(Trainer(torch.nn.Linear(1, 1), args).accelerator.mixed_precision)"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True) == "no\n"


BUSY = """
import numpy
from minirlhf.runtime import resume, stage
def main():
    POINT
    print("at work", flush=True)
    matrix = numpy.ones((6000, 6000))
    while True:
        matrix @ matrix  # seconds in which the main thread sees no signal
stage.run(main)
"""


def test_a_signal_ends_a_stage_at_once_and_says_how_to_go_on():
    for number, code, point, how in (
        (signal.SIGTERM, 143, "resume.saved('step 40')", ": it goes on from step 40"),
        (signal.SIGINT, 130, "pass", ""),
    ):
        command = [sys.executable, "-c", BUSY.replace("POINT", point)]
        default = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, preexec_fn=default) as process:
            assert process.stdout.readline() == "at work\n"
            process.send_signal(number)
            assert process.wait(timeout=10) == code
            assert process.stderr.read() == f"stopped ({number.name}); run the same command again{how}\n"


def test_too_little_memory_is_one_line_that_says_what_to_try(tmp_path):
    code = "from minirlhf.runtime import stage\ndef main(): return bytearray(2**40)\nstage.run(main)"
    (tmp_path / "ppo.py").write_text(code)
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))  # noqa: E731
    options = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "preexec_fn": limit}
    result = subprocess.run([sys.executable, tmp_path / "ppo.py"], capture_output=True, text=True, **options)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: out of memory")
    assert "a smaller ppo.micro_batch_size, ppo.rollout_batch_size" in result.stderr


def test_pytorch_without_memory_is_recognised():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert stage._explain(caught.value).startswith("out of memory (")
    assert stage._explain(RuntimeError("a defect")) is None
