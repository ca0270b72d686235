"""A function that a setting names by its file: `path/to/file.py:function`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from minirlhf.runtime.errors import UserError


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
