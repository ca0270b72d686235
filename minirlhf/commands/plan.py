"""`minirlhf plan`: what the stages of a run will take in memory and time, and whether that is there.

Memory is the worst case: the longest prompts and responses, and no row ending early. Times are of median lengths, from
a few passes really done with random weights (`--no-timing` leaves them out), scaled up by tokens; what they leave out
(loading, data, optimizer steps, the text measures of evaluate) is small where models are not tiny.
"""

from pathlib import Path

from minirlhf.commands.plan_memory import Phase, Plan, gigabytes
from minirlhf.commands.plan_sizes import read_data
from minirlhf.commands.plan_time import measure, work
from minirlhf.runtime.device import choose_device
from minirlhf.settings.params import Params


def available_memory(device: str) -> int:
    """Bytes free now: of the GPU, or of this machine and the control group that the process is in."""
    import psutil
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def show(params: Params, memory: int | None = None, timing: bool = True, root: Path = Path()) -> str:
    """The plan as text: memory by stage and phase, tokens and time by stage, the verdict.

    Args:
        memory: bytes of a GPU that is not here, to plan for it; None: the device here.
    """
    data = read_data(params, root)
    device = "cuda" if memory is not None else choose_device(params.device)
    plan = Plan(params, data, device)
    phases = plan.phases(params)
    there = available_memory(device) if memory is None else memory
    lines = [
        f"{params.model.base}: {_millions(plan.policy)} parameters, reward model {_millions(plan.reward)}; "
        f"{device}, {params.precision}, {gigabytes(there)} GB of memory",
        f"prompts of {data.prompt} tokens, at most {data.longest_prompt}; responses of {data.summary}, at most "
        f"{data.longest_summary}: {data.source}",
        "",
    ]
    header = ["stage", "work", "weights", "gradients", "optimizer", "activations", "logits", "KV cache", "total GB"]
    table = [[one.stage, one.work, *map(gigabytes, _parts(one))] for one in phases]
    lines += _table([header, *table]) + [""]
    # A GPU that is not here cannot be timed; nor what does not fit.
    fits = all(phase.total <= there for phase in phases)
    speeds = measure(plan) if timing and memory is None and fits else None
    rows = [[stage, f"{tokens / 1e6:.3g} M", _duration(seconds)] for stage, tokens, seconds in work(plan, speeds)]
    lines += _table([["stage", "tokens", "time"], *rows]) + [""]
    return "\n".join(lines + verdict(plan, phases, there))


def verdict(plan: Plan, phases: list[Phase], memory: int) -> list[str]:
    """One line if all fits, otherwise one for each stage that does not, with what to set."""
    largest = max(phases, key=lambda phase: phase.total)
    if largest.total <= memory:
        return [f"fits: at most {gigabytes(largest.total)} of {gigabytes(memory)} GB ({largest.stage}, {largest.work})"]
    lines = []
    for phase in phases:
        if phase.total > memory:
            remedy = plan.remedy(phase, memory) or "a smaller model or shorter prompts"
            needed = f"{phase.stage}, {phase.work}: {gigabytes(phase.total)} of {gigabytes(memory)} GB"
            lines.append(f"does not fit: {needed}; set {remedy}")
    return lines


def _parts(phase: Phase) -> list[int]:
    taken = phase.taken
    parts = [phase.weights, phase.gradients, phase.optimizer, taken.activations, taken.logits, taken.kv_cache]
    return [*parts, phase.total]


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g}M"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2 if len(widths) > 3 else 1  # columns of words; the others are numbers
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
