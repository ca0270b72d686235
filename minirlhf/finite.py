"""Numbers that went wrong stop a training at once: none is skipped, averaged away or saved."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import TrainerCallback

from minirlhf.errors import TrainingError
from minirlhf.prompts import decode


def first_bad(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None.

    >>> first_bad([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("nan")]))])
    'b'
    """
    return next((name for name, tensor in named if tensor is not None and not torch.isfinite(tensor).all()), None)


class FiniteTrainer:
    """Mixed into a transformers Trainer: raises TrainingError at the step whose loss is NaN or infinite.

    Left alone, a Trainer logs the mean of the earlier losses in its place, and trains on.
    """

    def training_step(self, model, inputs, *args, **kwargs) -> Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss):
            text = decode(self.processing_class, inputs["input_ids"][0].tolist())
            raise TrainingError(
                f"step {self.state.global_step + 1}: the loss is {float(loss)} on a batch that begins with "
                f"{text[:200]!r}; try a lower learning_rate"
            )
        return loss


class FiniteCallback(TrainerCallback):
    """Raises TrainingError before a step with a gradient that is not finite, and after one that broke the weights.

    The latter comes before the trainer saves or evaluates, so no checkpoint of broken weights is ever written.
    """

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs) -> None:
        name = first_bad((name, parameter.grad) for name, parameter in model.named_parameters())
        if name is not None:
            raise TrainingError(
                f"step {state.global_step + 1}: the gradient of {name} is not finite; try a lower learning_rate"
            )

    def on_step_end(self, args, state, control, model, **kwargs) -> None:
        name = first_bad(model.named_parameters())
        if name is not None:
            raise TrainingError(
                f"step {state.global_step}: the weights {name} are no longer finite; try a lower learning_rate"
            )

    def on_evaluate(self, args, state, control, metrics: dict[str, float], **kwargs) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingError(f"step {state.global_step}: {name} is {value}; try a lower learning_rate")
