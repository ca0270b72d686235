"""The processor that this machine has: its name, who made it, and the units that speed depends on."""

import platform
import subprocess
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Units that multiply numbers of bf16, by the names in /proc/cpuinfo.
BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")


def name() -> str:
    """The processor's model, as the system names it."""
    if "model name" in _described():
        return _described()["model name"]
    try:  # macOS
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()


def vendor() -> str:
    """ "intel", "amd" or "other": who made an x86-64 processor."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "other"
    known = f"{_described().get('vendor_id', '')} {name()}".lower()
    return next((each for each in ("intel", "amd") if each in known), "other")


def units() -> frozenset[str]:
    """Its instruction sets, by the names of Linux; none where the system does not say."""
    return frozenset(f"{_described().get('flags', '')} {_described().get('Features', '')}".split())


def multiplies_bf16() -> bool:
    """Whether it has units for products of bf16 numbers. Without them bf16 is slower than fp32."""
    return not units().isdisjoint(BF16_UNITS)


@cache
def _described() -> dict[str, str]:
    """What Linux says of the first processor."""
    try:
        first = CPUINFO.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
