"""The device that a stage runs on."""

from minirlhf.runtime import processor
from minirlhf.runtime.arithmetic import is_portable
from minirlhf.runtime.errors import UserError


def choose_device(device: str, precision: str = "fp32") -> str:
    """The device to run on: the named one, or for "auto" the first at hand of cuda, mps, cpu.

    Raises UserError for bf16 on a CPU that has no units for it, where it is slower than fp32.
    """
    import torch

    if device == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    if device == "cpu" and precision == "bf16":
        if is_portable():
            raise UserError(
                "precision: expected fp32 with arithmetic: portable: some processors have no units for bf16"
            )
        if not processor.multiplies_bf16():
            here = f"this processor ({processor.name()}) has no units for bf16 ({' or '.join(processor.BF16_UNITS)})"
            raise UserError(f"precision: expected fp32: {here}, which would be slower")
    return device
