"""Portable arithmetic: the same bytes on this processor and on two emulated ones."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minirlhf.runtime import processor
from tests.conftest import SOAK

STEPS = Path(__file__).with_name("portable_steps.py")
pytestmark = pytest.mark.skipif("avx2" not in processor.units(), reason="this processor has no AVX2")


def steps(*under: str) -> str:
    return subprocess.check_output([*under, sys.executable, str(STEPS)], text=True, stderr=subprocess.DEVNULL)


def test_the_same_bytes_in_another_process():
    assert steps() == steps()


@pytest.mark.skipif(not SOAK, reason="takes minutes; set MINIRLHF_SOAK=1")
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed")
@pytest.mark.parametrize("cpu", ["Haswell", "EPYC"])
def test_the_same_bytes_on_an_emulated_processor(cpu):
    assert steps("qemu-x86_64", "-cpu", cpu) == steps()
