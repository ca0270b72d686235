import subprocess
import sys
from types import SimpleNamespace

import pytest

from minirlhf import stage
from minirlhf.errors import printable


def test_a_user_error_is_one_line_and_exit_code_1():
    code = (
        "from minirlhf import stage, errors\n"
        "def main(): raise errors.UserError('no\\x1b[31m\\nfile')\n"
        "stage.run(main)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: no\\x1b[31m\\nfile\n"


def test_other_errors_keep_their_traceback():
    def main():
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        stage.run(main)


def test_printable_leaves_text_of_any_script_alone():
    assert printable("žluťoučký 日本 🙂") == "žluťoučký 日本 🙂"
    assert printable("\ud800\x00") == "\\ud800\\x00"


def test_importing_stage_helpers_imports_no_torch():
    code = "import sys, minirlhf.stage, minirlhf.files, minirlhf.progress; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_set_up_seeds_every_generator():
    import random

    import numpy
    import torch

    threads = torch.get_num_threads()

    def draw(seed):
        stage.set_up(SimpleNamespace(seed=seed, threads=threads))
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    try:
        assert draw(3) == draw(3)
        assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
