"""The exceptions that are meant for the user's eyes, and what makes text safe to print."""

import sys


class UserError(Exception):
    """Something the user can put right, said in one line that names the key or file and what is accepted.

    Stages print it as `error: ...` and end with exit code 1, without a traceback (`minirlhf.runtime.stage.run`).
    """


class TrainingError(UserError):
    """Training met a number that is NaN or infinite. No step was taken with it, and nothing was saved of it."""


# How they say that they found no memory: allocators (Linux, Windows, C++, CUDA and Apple), cuBLAS, oneDNN.
_OUT_OF_MEMORY = (
    *("allocate memory", "not enough memory", "bad_alloc", "out of memory"),
    *("status_alloc_failed", "could not create a primitive"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is that of an allocator, Python's or PyTorch's, that found no memory.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    True
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def no_package(name: str) -> str:
    """What to say where a package is missing: mostly another Python runs than the environment's.

    >>> no_package("pydantic").replace(sys.executable, "/usr/bin/python")
    '/usr/bin/python has no package pydantic: use the environment (source .venv/bin/activate), or make setup'
    """
    return f"{sys.executable} has no package {name}: use the environment (source .venv/bin/activate), or make setup"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def printable(text: str) -> str:
    """`text` with control characters, line breaks and lone surrogates escaped: one line, safe in a terminal.

    >>> printable("bad\\x1b[31m key\\n")
    'bad\\\\x1b[31m key\\\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
