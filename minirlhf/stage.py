"""What every stage does around its work: an error in one line, and the same arithmetic each time."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from minirlhf.errors import UserError, printable

if TYPE_CHECKING:
    from minirlhf.params import Params

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic matrix products on CUDA ask for
}


def run(main: Callable[[], object]) -> None:
    """Call a stage's `main` and end the process: exit code 0, or 1 after `error: ...` for a UserError.

    Any other exception is a defect of ours and keeps its traceback.
    Use: `if __name__ == "__main__": run(main)`.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {printable(str(error))}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def quiet() -> None:
    """Make the Hugging Face libraries quiet, if called before their import. What the user has set is left alone."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def set_up(params: "Params") -> None:
    """Make this process deterministic and its libraries quiet; call it before their first import.

    Sets the number of threads, which changes the order of sums and so the last bits of results, the seeds
    of `random`, NumPy and PyTorch, and deterministic kernels.
    """
    quiet()
    import random

    import numpy
    import torch

    random.seed(params.seed)
    numpy.random.seed(params.seed % 2**32)
    torch.manual_seed(params.seed)
    torch.set_num_threads(params.threads)
    torch.use_deterministic_algorithms(True)
