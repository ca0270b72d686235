"""MiniRLHF: summarisation by human feedback, whole and small. Import what you need from the modules."""

import sys
from importlib.util import find_spec
from pathlib import Path

# A stage's script run by another Python than the environment's, as `dvc` finds it on the PATH: one line, no traceback.
if Path(sys.argv[0]).parent.name == "stages":
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"error: {sys.executable} is older than Python 3.11: use the environment (source .venv/bin/activate)")
    for package in ("filelock", "pydantic", "ruamel.yaml"):  # what a script imports before it can say anything itself
        if find_spec(package.partition(".")[0]) is None:
            from minirlhf.runtime.errors import no_package

            sys.exit(f"error: {no_package(package)}")
