"""Who decides which summary is better: judges apart from the reward that PPO was trained on.

- `gold`: the truth, in the embedded world;
- `judge`: the one named in the params: a second reward model, a function, or a language model behind an endpoint;
- `reward`: the training reward itself. It is always reported, and decides only where there is nothing better: a policy
  trained on it is bound to win by it, so that says how far optimization went, not that summaries got better.

Most judges score a summary, and of two the one with the higher score wins; their scores are a measure of that name (see
`measures.py`). Others compare two summaries and give no scores (`pairwise.py`).
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minirlhf.runtime.errors import UserError

if TYPE_CHECKING:
    from minirlhf.settings.evaluation import JudgeParams

TRAINING_REWARD = "training reward"


def judge_names(has_gold: bool, judge: "JudgeParams | None") -> dict[str, str]:
    """Who judges, the one that decides first, each with the name a reader is told."""
    names = {"gold": "gold"} if has_gold else {}
    if judge is not None:
        names["judge"] = judge.name
    return names | {"reward": TRAINING_REWARD}


def load_function(spec: str) -> Callable:
    """The function named by `path/to/file.py:function`; the file is run, as Python runs any module it imports.

    Raises:
        UserError: another form, no such file or function, or a file that raises.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"evaluate.judge.name: expected path/to/file.py:function, got {spec!r}")
    if not Path(file).is_file():
        raise UserError(f"evaluate.judge.name: no file {file}")
    module_spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules.setdefault(module_spec.name, module)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"evaluate.judge.name: {file} cannot be run: {error!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"evaluate.judge.name: {file} has no function {name}")
    return function
