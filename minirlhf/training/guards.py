"""What guards a trainer of transformers: numbers that went wrong stop it at once, and where memory runs out it halves.

No number that is NaN or infinite is skipped, averaged away or saved.
"""

import math

import torch
from torch import Tensor
from transformers import TrainerCallback

from minirlhf.models.finite import first_bad
from minirlhf.runtime.errors import TrainingError
from minirlhf.runtime.memory import BatchSize
from minirlhf.text.prompts import decode


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


class HalvingTrainer:
    """Mixed into a transformers Trainer: splits its micro-batches where memory runs out, the rest of the run.

    The gradient of the optimizer step is begun anew, with the micro-batches that went well before, since a backward
    pass may have failed half-way: nothing counts twice, and no second copy of the gradient is kept for the case. Not
    with several processes, whose backward passes meet.

    Subclasses say which `stage` they are, as the params call it, and provide `parts(inputs, number)`: a micro-batch as
    that many smaller ones, or fewer if it has no more, whose losses (`compute_loss`) sum up to its own.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        advice = "gradient_checkpointing, precision bf16 or shorter posts"
        self._size = BatchSize(self.args.per_device_train_batch_size, f"{self.stage}: micro_batch_size", advice)
        self._of_this_step: list[dict] = []  # the micro-batches that its gradient holds

    def training_step(self, model, inputs, *args, **kwargs) -> torch.Tensor:
        if self.accelerator.num_processes > 1 or self.args.n_gpu > 1:
            return super().training_step(model, inputs, *args, **kwargs)
        training_step = super().training_step
        before = self._size.size
        self._of_this_step.append(inputs)

        def add_gradient(size: int) -> torch.Tensor:
            whole = self.args.per_device_train_batch_size
            if size < before:  # an attempt failed
                model.zero_grad()
            for inputs in self._of_this_step if size < before else self._of_this_step[-1:]:
                parts = [inputs] if size == whole else self.parts(inputs, math.ceil(whole / size))
                loss = sum(training_step(model, part, *args, **kwargs) for part in parts)
            return loss

        loss = self._size.retry(add_gradient)
        if self.accelerator.sync_gradients:  # the last micro-batch of the step
            self._of_this_step.clear()
        return loss
