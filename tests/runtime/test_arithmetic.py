import os
import subprocess
import sys

import pytest

from minirlhf.runtime import arithmetic, device, processor, resume
from minirlhf.runtime.errors import UserError

INTEL = "vendor_id : GenuineIntel\nmodel name : Intel(R) Xeon(R)\nflags : avx2 avx512f amx_bf16\n\nvendor_id : no\n"
AMD = "vendor_id : AuthenticAMD\nmodel name : AMD EPYC\nflags : avx2\n"
ARM = "processor : 0\nFeatures : asimd bf16\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that puts another processor into the place of this one."""

    def put(cpuinfo, kind="x86_64"):
        file = tmp_path / "cpuinfo"
        file.write_text(cpuinfo)
        monkeypatch.setattr(processor, "CPUINFO", file)
        monkeypatch.setattr(processor.platform, "machine", lambda: kind)
        processor._described.cache_clear()

    yield put
    monkeypatch.undo()
    processor._described.cache_clear()


@pytest.fixture
def fresh(monkeypatch):
    """A process that has imported neither NumPy nor PyTorch yet, and whose environment is put right afterwards."""
    for name in (*arithmetic.PORTABLE, *arithmetic.NUMPY):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for module in ("numpy", "torch"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_who_multiplies_follows_the_processor(machine):
    for cpuinfo, kind, vendor, library in (
        (INTEL, "x86_64", "intel", "pytorch"),
        (AMD, "AMD64", "amd", "onednn"),
        (ARM, "aarch64", "other", "pytorch"),
    ):
        machine(cpuinfo, kind)
        assert (processor.vendor(), arithmetic.product_library()) == (vendor, library)
    machine(INTEL)
    assert arithmetic.description() == "native (Intel(R) Xeon(R), avx512f, products by pytorch)"


def test_portable_is_the_same_on_each_x86_with_avx2_and_native_where_there_is_none(machine, fresh, capsys):
    machine(ARM, "aarch64")
    arithmetic.apply("portable")
    assert not arithmetic.is_portable() and "OPENBLAS_CORETYPE" not in os.environ
    arithmetic.announce("portable")
    assert "products by pytorch); portable is for x86-64 with AVX2" in capsys.readouterr().err
    described = set()
    for cpuinfo in (INTEL, AMD):
        machine(cpuinfo)
        arithmetic.apply("portable")
        assert arithmetic.is_portable() and arithmetic.product_library() == "onednn"
        described.add(arithmetic.description())
    assert described == {"portable (AVX2, products by oneDNN)"}
    arithmetic.announce("portable")
    assert capsys.readouterr().err == "arithmetic: portable (AVX2, products by oneDNN)\n"


def test_a_process_that_has_pytorch_already_stays_as_it_is(machine, monkeypatch):
    machine(INTEL)
    monkeypatch.setitem(sys.modules, "torch", sys)
    arithmetic.apply("portable")
    assert not arithmetic.is_portable()


@pytest.mark.skipif("avx2" not in processor.units(), reason="this processor has no AVX2")
def test_portable_holds_numpy_and_pytorch_to_avx2():
    code = (
        "from minirlhf.runtime.stage import set_up; set_up(1, 1, 'portable')\n"
        "import torch; from numpy._core._multiarray_umath import __cpu_features__ as numpys\n"
        "print(torch.backends.cpu.get_cpu_capability(), numpys['X86_V3'], numpys['X86_V4'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "AVX2 True False\n"


def test_another_arithmetic_goes_on_from_no_old_state(machine):
    found = set()
    for cpuinfo in (INTEL, AMD):
        machine(cpuinfo)
        found.add(resume.fingerprint({}, []))
    assert len(found) == 2


def test_bf16_on_a_cpu_takes_units_for_it(machine, monkeypatch):
    machine(INTEL)
    assert device.choose_device("cpu", "bf16") == "cpu"
    machine(AMD)
    assert device.choose_device("cpu", "fp32") == "cpu"
    with pytest.raises(UserError, match=r"precision: expected fp32: this processor \(AMD EPYC\) has no units for bf16"):
        device.choose_device("cpu", "bf16")
    machine(INTEL)
    monkeypatch.setattr(device, "is_portable", lambda: True)
    with pytest.raises(UserError, match="precision: expected fp32 with arithmetic: portable"):
        device.choose_device("cpu", "bf16")
