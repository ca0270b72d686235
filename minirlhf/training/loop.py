"""Training with TRL's trainers, the same for all stages that do: settings, progress, resume points, history.

A resume point is the trainer's own checkpoint: weights in safetensors, the states of optimizer, scheduler and random
generators (`torch.load` with weights_only=True reads them), and the counters and logs in `trainer_state.json`. It
is written aside and swapped in whole. It comes at a step whose losses are logged, since a trainer does not save the
loss that it has summed since the last log. Resuming gives the same bytes as never having stopped.

Several processes deal out the micro-batches of a step and average their gradients (by DistributedDataParallel, which
the trainers wrap around the model). Sizes in the params are those of a whole step. The first process writes the files.
"""

import json
import os
import pickle
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate.utils import broadcast, wait_for_everyone
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from minirlhf.runtime.device import choose_device
from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import recover, replace_folder, writing
from minirlhf.runtime.progress import Progress
from minirlhf.runtime.resume import goes_on, saved
from minirlhf.settings.training import accumulation_steps
from minirlhf.training.guards import FiniteCallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

    from minirlhf.settings.algorithms import BaselineParams
    from minirlhf.settings.params import Params
    from minirlhf.settings.training import TrainParams

OnRow = Callable[[list[dict]], None]
RESUME, WRITING = "resume", "writing"  # in a run's folder: its resume point, and what is not whole yet


def fit(
    trainer_class: "type[Trainer]",
    config_class: "Callable[..., TrainingArguments]",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    train: list[dict],
    validation: list[dict],
    *,
    params: "Params",
    stage: Literal["sft", "reward"],
    columns: dict[str, str],
    folder: Path,
    on_row: OnRow | None = None,
    **options: Any,
) -> list[dict]:
    """Train `model` in place, from the resume point in `folder` if there is one.

    Args:
        train, validation: encoded examples.
        stage: whose section of the params to follow.
        columns: the trainer's name of a figure -> its column in the history.
        folder: for resume points.
        on_row: called with the history so far after each logged row.
        options: more arguments of the trainer.

    Returns:
        the history, a row a logged step: "step" and every column (None where it was not logged).

    Raises:
        TrainingError: a loss, a gradient or the weights are no longer finite.
        UserError: the resume point is damaged, some processes do not see it, or the batches cannot be dealt out.
    """
    from datasets import Dataset

    callback = RunCallback(stage, folder / RESUME, params.resume_minutes, columns, on_row)
    trainer = trainer_class(
        model=model,
        args=config_class(max_length=None, **_trainer_arguments(params, stage, folder / WRITING)),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(validation),
        processing_class=tokenizer,
        **options,
    )
    run(trainer, callback, folder)
    return history(trainer.state.log_history, columns)


def run(trainer: "Trainer", callback: "RunCallback", folder: Path) -> None:
    """Train, from the resume point in `folder` if there is one; the trainer writes to its subfolder WRITING.

    Raises:
        TrainingError, UserError: as `fit`.
    """
    for printer in (PrinterCallback, ProgressCallback):  # RunCallback shows progress
        trainer.remove_callback(printer)
    trainer.add_callback(callback)
    trainer.add_callback(FiniteCallback())
    point, scratch, is_main = callback.point, folder / WRITING, trainer.is_world_process_zero()
    with writing(folder):
        if is_main:
            recover(point)
            shutil.rmtree(scratch, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        if bool(broadcast(torch.tensor(point.exists(), device=trainer.args.device).int())) != point.exists():
            raise UserError(f"{point}: another process sees something else there; hosts must share the folder")
        try:
            trainer.train(resume_from_checkpoint=str(point) if point.exists() else None)
        except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, json.JSONDecodeError) as error:
            if callback.stepped or not point.exists():
                raise
            raise UserError(f"{point}: cannot be read ({first_line(error)}); delete it to begin anew") from error
        finally:
            if is_main:
                shutil.rmtree(scratch, ignore_errors=True)


def pass_through(model: torch.nn.Module, function: Callable[..., Tensor], *inputs: Tensor, **named: Tensor) -> Tensor:
    """`function(network, *inputs, **named)`, where `model` is the network, or DistributedDataParallel around it.

    The latter averages gradients only of what its own forward pass has computed. So for this once `function` is the
    network's forward pass (as in `_ForwardRedirection` of Lightning and TRL).
    """
    if not isinstance(model, DistributedDataParallel):
        return function(model, *inputs, **named)
    network = model.module
    own = vars(network).pop("forward", None)  # where accelerate has put another one in front of the class's

    def restore() -> None:
        vars(network).pop("forward", None)
        if own is not None:
            network.forward = own

    def once(*inputs: Tensor, **named: Tensor) -> Tensor:
        restore()  # `function` may call the network
        return function(network, *inputs, **named)

    network.forward = once
    try:
        return model(*inputs, **named)
    finally:
        restore()


def _trainer_arguments(params: "Params", stage: Literal["sft", "reward"], folder: Path) -> dict[str, Any]:
    """Arguments of TRL's SFTConfig and RewardConfig that follow from a stage's params."""
    section = getattr(params, stage)
    return {
        **run_arguments(params, section, folder),
        "gradient_accumulation_steps": accumulation_steps(stage, section),
        "ddp_find_unused_parameters": False,  # there are none; looking for them costs time at every step
        "max_steps": section.steps,
        "per_device_eval_batch_size": section.micro_batch_size,
        "lr_scheduler_type": "cosine",
        "warmup_steps": section.warmup_steps,
        "logging_steps": section.log_every,
        "eval_strategy": "steps",
        "eval_steps": section.eval_every,
        "gradient_checkpointing": section.gradient_checkpointing,
    }


def run_arguments(params: "Params", section: "TrainParams | BaselineParams", folder: str | Path) -> dict[str, Any]:
    """Arguments that every one of TRL's configs takes here: batches, learning rate, arithmetic, silence."""
    # TRL uses the old names of a setting that transformers 6 will rename; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": section.micro_batch_size,
        "gradient_accumulation_steps": section.batch_size // section.micro_batch_size,
        "learning_rate": section.learning_rate,
        "logging_nan_inf_filter": False,  # a loss that is not finite is an error, not to be averaged away
        "save_strategy": "no",  # RunCallback says when
        "gradient_checkpointing": False,
        "use_cpu": choose_device(params.device) == "cpu",
        "bf16": params.precision == "bf16",
        "seed": params.seed,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


class RunCallback(TrainerCallback):
    """Shows a trainer's progress, asks it for a checkpoint now and then, and makes a resume point of that.

    Args:
        desc: what the progress line calls the work.
        point: the folder that is to hold the newest resume point.
        minutes: between two of them; they wait for the next logged step.
        columns, on_row: as in `fit`.
    """

    def __init__(self, desc: str, point: Path, minutes: float, columns: dict[str, str], on_row: OnRow | None = None):
        self.desc, self.point, self.seconds = desc, point, 60 * minutes
        self.columns, self.on_row = columns, on_row
        self.stepped = False  # until then a trainer reads its checkpoint
        self._shown: dict[str, float] = {}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._progress = Progress(state.max_steps, unit="steps", desc=self.desc)
        if state.global_step:
            self._progress.start_at(state.global_step)
            goes_on(self.desc, f"step {state.global_step}")
        self._saved_at = time.monotonic()

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.stepped = True

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self._progress.update(1, **self._shown)
        # Not after the last step: trainers go on from there with one step more.
        possible = control.should_log and state.global_step < state.max_steps
        due = time.monotonic() - self._saved_at >= self.seconds
        # The clock of the first process counts: each of them writes its own random state.
        control.should_save = possible and bool(broadcast(torch.tensor(due, device=args.device).int()))

    def on_log(self, args, state, control, logs: dict[str, float], **kwargs) -> None:
        figures = {column: logs[name] for name, column in self.columns.items() if name in logs}
        self._shown.update(figures)
        if figures and self.on_row is not None and state.is_world_process_zero:
            self.on_row(history(state.log_history, self.columns))

    def on_save(self, args, state, control, **kwargs) -> None:
        wait_for_everyone()  # until their random states are there, too
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            (checkpoint / "training_args.bin").unlink()  # a pickle, which nobody reads
            with replace_folder(self.point) as new:
                os.rename(checkpoint, new)
        saved(f"step {state.global_step}")
        self._saved_at = time.monotonic()


def history(logs: list[dict[str, float]], columns: dict[str, str]) -> list[dict]:
    """Rows of a trainer's logs, one a step; other figures than those of `columns` are left out.

    >>> history([{"loss": 0.5, "lr": 1.0, "step": 1}, {"eval_loss": 0.25, "step": 1}], {"loss": "a", "eval_loss": "b"})
    [{'step': 1, 'a': 0.5, 'b': 0.25}]
    """
    rows: dict[int, dict] = {}
    for entry in logs:
        figures = {column: round(entry[name], 6) for name, column in columns.items() if name in entry}
        if figures:
            empty = {"step": entry["step"], **dict.fromkeys(columns.values())}
            rows.setdefault(entry["step"], empty).update(figures)
    return list(rows.values())


def last_logged(rows: list[dict], column: str) -> float:
    """The last figure of a column of a history."""
    return [row[column] for row in rows if row[column] is not None][-1]
