"""Whose kernels compute on a CPU: the fastest of this processor (native), or those that all have alike (portable).

The same program gives other last digits where a library takes other kernels, and each of them chooses by the processor.
Portable arithmetic holds all of them to AVX2, which every x86-64 of the last ten years has, and asks for the same bytes
on each: docs/speed.md says how that was found, and what it costs.
"""

import os
import sys
from typing import Literal

from minirlhf.runtime import processor

Arithmetic = Literal["portable", "native"]

# What ATen and oneDNN obey. MKL takes other kernels on an AMD processor than on an Intel one, unless it is told to be
# COMPATIBLE, which is slow: so no large product is left to it then (minirlhf/models/{products,attention}.py).
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_NUM_THREADS": "1",  # else as many as there are cores, which is another order of sums
}
# NumPy, which pictures are drawn with, and its OpenBLAS. It computes little: it is portable always.
NUMPY = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Haswell"}


def apply(arithmetic: Arithmetic) -> None:
    """Choose the arithmetic of this process, before it imports NumPy and PyTorch: they look for it once."""
    if "avx2" not in processor.units():
        return
    if "numpy" not in sys.modules:
        os.environ.update(NUMPY)
    if arithmetic == "portable" and "torch" not in sys.modules:
        os.environ.update(PORTABLE)


def is_portable() -> bool:
    """Whether this process computes alike on every x86-64 with AVX2."""
    return all(os.environ.get(name) == value for name, value in PORTABLE.items())


def product_library() -> Literal["onednn", "pytorch"]:
    """Who makes the products of linear layers in fp32: oneDNN, or PyTorch's own choice, which is MKL on an x86-64.

    A rule, not a measurement at first use, whose noise would decide bytes. `minirlhf bench` says where it is wrong for
    a machine; docs/speed.md has its tables.
    """
    return "onednn" if is_portable() or processor.vendor() == "amd" else "pytorch"


def description() -> str:
    """What the last digits depend on, beside versions and threads: two machines of which it is the same agree."""
    if is_portable():
        return "portable (AVX2, products by oneDNN)"
    widest = next((unit for unit in ("avx512f", "avx2") if unit in processor.units()), "no AVX2")
    return f"native ({processor.name()}, {widest}, products by {product_library()})"


def announce(arithmetic: Arithmetic) -> None:
    """Say which arithmetic it is, and why where it is not the one that was asked for."""
    asked = "; portable is for x86-64 with AVX2, on Linux" if arithmetic == "portable" and not is_portable() else ""
    print(f"arithmetic: {description()}{asked}", file=sys.stderr, flush=True)
