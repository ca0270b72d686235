"""What the two stages that train with TRL's trainers have in common: their arguments and their history."""

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from minirlhf.memory import explained
from minirlhf.progress import Progress

if TYPE_CHECKING:
    from minirlhf.params import Params, TrainParams


def trainer_arguments(params: "Params", section: "TrainParams", folder: str) -> dict[str, Any]:
    """Arguments of TRL's SFTConfig and RewardConfig that follow from a stage's params."""
    # TRL sets the old name of a setting that transformers 6 will rename; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
    return {
        "output_dir": folder,
        "max_steps": section.steps,
        "per_device_train_batch_size": section.micro_batch_size,
        "per_device_eval_batch_size": section.micro_batch_size,
        "gradient_accumulation_steps": section.batch_size // section.micro_batch_size,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": section.warmup_steps,
        "logging_steps": section.log_every,
        "logging_nan_inf_filter": False,  # a loss that is not finite is an error, not to be averaged away
        "eval_strategy": "steps",
        "eval_steps": section.eval_every,
        "save_strategy": "no",
        "gradient_checkpointing": section.gradient_checkpointing,
        "use_cpu": params.device == "cpu",
        "bf16": params.precision == "bf16",
        "seed": params.seed,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


def naming_micro_batch_size(stage: str, section: "TrainParams") -> contextlib.AbstractContextManager:
    """Turns an out-of-memory error of the training inside into a UserError that says what to set."""
    size = section.micro_batch_size
    less = f"{stage}.micro_batch_size: {size // 2}" if size > 1 else "a shorter data.max_prompt_tokens"
    return explained(f"{stage}: out of memory; try {less}, {stage}.gradient_checkpointing: true or precision: bf16")


class HistoryCallback(TrainerCallback):
    """Collects a trainer's logs as rows, and shows progress in the place of the trainer's own bar.

    Args:
        steps: optimizer steps in all.
        desc: what the progress line calls the work.
        names: the trainer's name of a figure -> its column here; other figures are left out.

    Attributes:
        rows: a row a logged step, in order: "step" and every column (None where it was not logged).
    """

    def __init__(self, steps: int, desc: str, names: dict[str, str]):
        self.names, self.rows = names, []
        self._progress = Progress(steps, unit="steps", desc=desc)
        self._shown: dict[str, float] = {}

    def attach(self, trainer) -> None:
        """Take the place of the printers that the trainer brings along."""
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self._progress.update(1, **self._shown)

    def on_log(self, args, state, control, logs: dict[str, float], **kwargs) -> None:
        figures = {column: round(logs[name], 6) for name, column in self.names.items() if name in logs}
        if not figures:
            return
        self._shown.update(figures)
        if not self.rows or self.rows[-1]["step"] != state.global_step:
            self.rows.append({"step": state.global_step, **dict.fromkeys(self.names.values())})
        self.rows[-1].update(figures)


def last_logged(rows: list[dict], column: str) -> float:
    """The last figure of a column of a history."""
    return [row[column] for row in rows if row[column] is not None][-1]
