"""The device that a stage runs on."""


def choose_device(device: str) -> str:
    """The device to run on: the named one, or for "auto" the first at hand of cuda, mps, cpu."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
