"""Curves and samples for the trackers that the params name: TensorBoard, Weights & Biases, MLflow, trackio.

Each is written to by its own package, which is no dependency, and only by the first process. Where it keeps things, who
may see them and whose account it is are its own affair: its environment variables and its login decide, no file here.
accelerate's trackers are not used: they need its process state, which the trainers set up later, and have few tables.
"""

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.launch import rank

PROJECT = "minirlhf"
Name = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Row = dict[str, Any]


def check_installed(names: tuple[Name, ...]) -> tuple[Name, ...]:
    """The trackers, if their packages are there. ValueError for one that is not."""
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed: pip install {name} (or take it out of the list)")
    return names


class Tracker(Protocol):
    """One tracker's run. `where` is a folder for what it keeps on this machine."""

    def __init__(self, run: str, settings: Row, where: Path): ...

    def log(self, figures: dict[str, float], step: int) -> None: ...

    def table(self, name: str, rows: list[Row], step: int) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    def __init__(self, run: str, settings: Row, where: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(where / run)
        self._writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def table(self, name: str, rows: list[Row], step: int) -> None:
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        cells = [[str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in cells), step)

    def finish(self) -> None:
        self._writer.close()


class WandB:
    def __init__(self, run: str, settings: Row, where: Path):
        import wandb

        where.mkdir(parents=True, exist_ok=True)
        self._table = wandb.Table
        self._run = wandb.init(project=PROJECT, name=run, dir=where, config=settings)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def table(self, name: str, rows: list[Row], step: int) -> None:
        table = self._table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({name: table}, step=step)

    def finish(self) -> None:
        self._run.finish()


class MLflow:
    def __init__(self, run: str, settings: Row, where: Path):
        import mlflow

        self._mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:  # else it would be in this folder, perhaps a temporary one
            where.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{where.absolute()}/mlflow.db")
            if mlflow.get_experiment_by_name(PROJECT) is None:
                mlflow.create_experiment(PROJECT, (where.absolute() / "mlflow").as_uri())
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=run)
        mlflow.log_params(settings)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(figures, step=step)

    def table(self, name: str, rows: list[Row], step: int) -> None:
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        self._mlflow.log_table({"step": [step] * len(rows), **columns}, f"{name}.json")

    def finish(self) -> None:
        self._mlflow.end_run()


class Trackio:
    def __init__(self, run: str, settings: Row, where: Path):
        import trackio

        self._table = trackio.Table
        self._run = trackio.init(project=PROJECT, name=run, config=settings, embed=False)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def table(self, name: str, rows: list[Row], step: int) -> None:
        import pandas

        self._run.log({name: self._table(dataframe=pandas.DataFrame(rows))}, step=step)

    def finish(self) -> None:
        self._run.finish()


KINDS: dict[Name, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


class Trackers:
    """The trackers of one stage, as a context: what they are told is written when it ends well.

    Args:
        stage: begins the names of the run and of all that it is told.
        names: which trackers; of none nothing is written.
        settings: of the run, shown beside it.

    Raises:
        UserError: one does not start, as for want of an account.
    """

    def __init__(self, stage: str, names: tuple[Name, ...], settings: Row):
        self.stage = stage
        root = Path(os.environ.get("DVC_ROOT", ""))  # of an experiment in a temporary copy: the repository's
        run = f"{stage}-{os.environ.get('DVC_EXP_NAME') or time.strftime('%Y%m%d-%H%M%S')}"
        flat = _flat(settings)
        self._trackers: list[Tracker] = []
        for name in dict.fromkeys(names if rank() == 0 else ()):
            try:
                self._trackers.append(KINDS[name](run, flat, root / "runs"))
            except Exception as error:  # each package has its own
                raise UserError(f"trackers: {name} did not start: {first_line(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:  # else the packages see how the process ends
            for tracker in self._trackers:
                tracker.finish()

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def log(self, figures: dict[str, float], step: int) -> None:
        """Figures of a step, by their names."""
        for tracker in self._trackers:
            tracker.log({f"{self.stage}/{name}": value for name, value in figures.items()}, step)

    def table(self, name: str, rows: list[Row], step: int = 0) -> None:
        """Rows of a table with the same columns; prompts that are chats are shown as JSON."""
        shown = [{key: _plain(value) for key, value in row.items()} for row in rows]
        for tracker in self._trackers if shown else ():
            tracker.table(f"{self.stage}/{name}", shown, step)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value, ensure_ascii=False)


def _flat(settings: Row, before: str = "") -> Row:
    """Settings by dotted names.

    >>> _flat({"seed": 1, "ppo": {"lora": None}})
    {'seed': 1, 'ppo.lora': 'null'}
    """
    flat: Row = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{before}{name}.") if nested else {before + name: _plain(value)}
    return flat
