"""What every stage does around its work: an error in one line, and the same arithmetic each time."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from minirlhf.runtime import arithmetic as arithmetics
from minirlhf.runtime import unchanged
from minirlhf.runtime.errors import UserError, is_out_of_memory, no_package, printable
from minirlhf.runtime.files import write_failure
from minirlhf.runtime.launch import rank
from minirlhf.runtime.resume import last_point

# Of every stage, unless the user has set it otherwise.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic matrix products on CUDA ask for
    # Large tensors in pages of 2 MB (Linux): each page that is touched first costs a trap into the kernel. An update of
    # GPT-2 124M on 2 cores is a fifth faster so, and takes half a GB more.
    "THP_MEM_ALLOC_ENABLE": "1",
}


# What takes less memory, by stage.
MEMORY_SETTINGS = {
    "sft": "sft.micro_batch_size, or sft.gradient_checkpointing: true",
    "reward": "reward.micro_batch_size, or reward.gradient_checkpointing: true",
    "ppo": "ppo.micro_batch_size, ppo.rollout_batch_size, or ppo.critic: shared (rloo, grpo and dpo: the "
    "micro_batch_size of their own section)",
    "evaluate": "evaluate.batch_size",
}
GRACE = 5.0  # seconds for the first process to say the same


def run(main: Callable[[], object]) -> None:
    """Call a stage's `main` and end the process: exit code 0, or 1 after `error: ...` for what the user can put right.

    That is a UserError, a disk that is full or not writable, too little memory, and a package that this Python lacks.
    Any other exception is a defect of ours and keeps its traceback. A stage that ends well but read what was changed
    meanwhile fails too (`minirlhf.runtime.unchanged`). SIGTERM and Ctrl-C end the process at once, with exit codes 143
    and 130.
    Of several processes that fail alike the first one says why, and the launcher ends the others.
    Use: `if __name__ == "__main__": run(main)`.
    """
    _end_when_told()
    try:
        unchanged.note()
        main()
        unchanged.check()
    except Exception as error:
        line = _explain(error)
        if line is None:
            raise
        if rank() == 0:
            sys.exit(f"error: {printable(line)}")
        time.sleep(GRACE)
        sys.exit(f"error: process {rank()}: {printable(line)}")


def _explain(error: Exception) -> str | None:
    """What to tell the user in one line, or None for a defect of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("minirlhf"):
        return no_package(error.name)
    text = str(error).strip().splitlines() or [""]
    if is_out_of_memory(error):
        smaller = MEMORY_SETTINGS.get(Path(sys.argv[0]).stem)
        return f"out of memory ({text[0][:200]})" + (f"; less takes a smaller {smaller}" if smaller else "")
    reason = write_failure(error)
    return reason and f"{getattr(error, 'filename', None) or 'a file'}: cannot be read or written: {reason}"


def _end_when_told() -> None:
    """End this process on SIGTERM and Ctrl-C, and when the DVC that started it is gone.

    A thread of its own waits for that, since the main one may be within a step of minutes. Nothing is tidied up: what
    is on the disk is whole at any time, and the next run clears away the rest, as after a SIGKILL.
    """
    if os.name == "nt":  # there a pipe cannot be waited for so, and Python's own way must do
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in a background job of a shell script
            signal.signal(number, lambda *_: None)  # a handler in name only: Python writes the number to the pipe
    signal.set_wakeup_fd(write)
    threading.Thread(target=_wait_for_the_end, args=(read, "DVC_STAGE" in os.environ), daemon=True).start()


def _wait_for_the_end(pipe: int, under_dvc: bool) -> None:
    """Wait for a signal's number in `pipe`, or until DVC or what it started to run us is gone; then end the process."""
    ancestors = _ancestors() if under_dvc else []
    # Adopted by init before we looked: not where DVC itself is the first process of its container.
    orphan = ancestors[-1:] == [1] and not _in_the_first_session([os.getpid(), *ancestors][-2])
    while not (orphan or select.select([pipe], [], [], 1.0)[0]):
        orphan = under_dvc and _ancestors(len(ancestors)) != ancestors
    number = signal.SIGTERM if orphan else os.read(pipe, 1)[0]
    why = "dvc is gone" if orphan else signal.Signals(number).name
    point = last_point()
    how = f": it goes on from {point}" if point else ""  # not known before the stage has looked for it
    if rank() == 0:  # not by print: the main thread may hold its lock
        os.write(2, f"{chr(10) * os.isatty(2)}stopped ({why}); run the same command again{how}\n".encode())
    os._exit(128 + number)


def _in_the_first_session(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(process) == 1
    return False


def _ancestors(count: int | None = None) -> list[int]:
    """Numbers of this process's parent, its parent and so on: `count` of them, or those up to DVC.

    DVC is the first whose command line does not name our script: shells and launchers between are there to run it.
    """
    import psutil

    found, process = [], psutil.Process()
    with contextlib.suppress(psutil.Error):  # gone while we looked
        while len(found) != count and (process := process.parent()) is not None:
            found.append(process.pid)
            if count is None and sys.argv[0] not in " ".join(process.cmdline()):
                break
    return found


def quiet(arithmetic: arithmetics.Arithmetic = "native") -> None:
    """Set `ENVIRONMENT`, and the arithmetic: to be called before the libraries' first import, which read them then."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    arithmetics.apply(arithmetic)


def set_up(seed: int, threads: int, arithmetic: arithmetics.Arithmetic) -> None:
    """Make this process deterministic and its libraries quiet; call it before their first import.

    Sets the arithmetic and says which it is, the number of threads, which changes the order of sums and so the last
    bits of results, the seeds of `random`, NumPy and PyTorch, and deterministic kernels.
    """
    quiet(arithmetic)
    os.environ.pop(
        "ACCELERATE_MIXED_PRECISION", None
    )  # of accelerate launch or its config file: `precision` says which
    if rank() == 0:
        arithmetics.announce(arithmetic)
    import random

    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # That also writes NaN over every new tensor, against kernels that read what nobody wrote, and costs time.
    # pyrefly: ignore[missing-attribute]  # the module is given this property when it is imported
    torch.utils.deterministic.fill_uninitialized_memory = False
