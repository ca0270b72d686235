"""NaN and infinity among a model's tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor


def first_bad(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None.

    >>> first_bad([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("nan")]))])
    'b'
    """
    return next((name for name, tensor in named if tensor is not None and not torch.isfinite(tensor).all()), None)
