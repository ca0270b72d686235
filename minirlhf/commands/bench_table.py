"""What `minirlhf bench` found, for people: the machine, the checks, the rule of products, a row a trainer."""

import statistics
from collections.abc import Sequence
from typing import Any

from minirlhf.commands.bench_parts import DONE, Report
from minirlhf.commands.bench_work import PHASES, Work

TRL_PPO = "TRL 1.12.0 PPO"
MILLION = 1_000_000
# Dense bf16 multiply-adds (counted twice) a second, by the maker's data sheets; of others what is measured counts.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
SHARES = {"sample": "sampling", "score": "scoring", "learn": "learning"}
COLUMNS = ("work", "trainer", "precision", "episodes/s", "tokens/s", "times TRL PPO", "peak GB", "of TRL PPO's")
HOURS = f"hours for {MILLION:,} episodes"
COLUMNS += ("share of peak", *SHARES.values(), HOURS, "note")
CHECKS = {
    "ratio_error": "largest error of the first minibatch's ratio, which should be 1",
    "same_samples_as_the_loop": "the step of fixed shapes samples what the plain loop does, in fp32",
    "same_samples_with_and_without_graphs": "the same samples with and without CUDA graphs",
    "same_bytes_twice": "two runs end with the same bytes",
    "same_bytes_after_a_kill": "a run that was killed and resumed ends with the same bytes",
}
WRONG = 0.9  # the rule is called wrong where its library is slower than this by the other's speed


def head(columns: Sequence[str] = COLUMNS) -> str:
    """The first two lines of a table in Markdown."""
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"


def line(row: dict[str, Any]) -> str:
    """A row of the table in Markdown."""

    def cell(value: str | float | None) -> str:
        return "-" if value is None else value if isinstance(value, str) else f"{value:.3g}"

    return f"| {' | '.join(cell(row[name]) for name in COLUMNS)} |"


def row(work: Work, reports: Sequence[Report], theirs: Sequence[Report], machine: Report) -> dict[str, Any]:
    """A row of the table: medians over the rounds of one trainer; what cannot be known is None.

    Args:
        reports: of the trainer, a round each.
        theirs: of TRL's PPO in the same rounds; empty where it was not run.
        machine: what `benchmarks/bench/arithmetic.py` found.
    """
    first, rates = reports[0], [rate(report) for report in reports]
    found = dict.fromkeys(COLUMNS) | {key: first[key] for key in ("work", "trainer", "precision")}
    found["note"] = "; ".join(dict.fromkeys(filter(None, map(note, reports))))
    known = [each for each in rates if each is not None]
    if not known:
        return found
    speed = statistics.median(known)
    memory = statistics.median(report["peak_gb"] for report in reports if report.get("peak_gb"))
    found |= {"episodes/s": speed, "tokens/s": speed * work.tokens, "peak GB": memory, HOURS: MILLION / speed / 3600}
    pairs = [(a, b) for a, b in zip(reports, theirs, strict=True) if rate(a) and rate(b)] if theirs else []
    if pairs:
        found["times TRL PPO"] = statistics.median(rate(a) / rate(b) for a, b in pairs)
        found["of TRL PPO's"] = statistics.median(a["peak_gb"] / b["peak_gb"] for a, b in pairs)
    peak = peak_of(machine, first["precision"])
    if peak is None:
        return found
    flops = work.flops(first["separate_critic"])
    found["share of peak"] = speed * sum(flops.values()) / peak
    phases = [phase for report in reports for phase in measured(report.get("phases", []))]
    if phases:
        episodes = work.episodes * len(phases)
        for phase in PHASES:
            spent = sum(each[phase] for each in phases)
            found[SHARES[phase]] = episodes * flops[phase] / spent / peak
    return found


def measured(updates: list) -> list:
    """The updates that count: without the first one, which warms up, unless there is no other."""
    return updates[1:] or updates


def rate(report: Report) -> float | None:
    """Episodes a second by the median update."""
    seconds = measured(report.get("seconds", []))
    return report["episodes"] / statistics.median(seconds) if seconds else None


def note(report: Report) -> str:
    """What a reader must know of a measurement beside its numbers."""
    updates = len(report.get("seconds", []))
    words = [] if report["ended"] == DONE else [report["ended"]]
    if updates == 1:
        words.append("the first update alone")
    elif words and updates:
        words.append(f"{updates} updates")
    return ", ".join(words).replace("|", "/")


def peak_of(machine: Report, precision: str) -> float | None:
    """Multiply-adds (counted twice) a second that the machine can give at most."""
    if precision == "bf16" and machine["device"] == "cuda":
        named = next((peak for name, peak in PEAKS.items() if name in machine["name"]), None)
        if named is not None:
            return named
    return machine.get("flops", {}).get(precision)


def describe_machine(machine: Report) -> str:
    """The machine in words, and where the rule of products is wrong for it."""
    lines = [f"{machine['threads']} threads of {machine['name']}; {machine['arithmetic']}; torch {machine['torch']}"]
    if machine["device"] == "cuda":
        lines[0] = f"{machine['name']}; torch {machine['torch']}"
    for precision, flops in machine.get("flops", {}).items():
        lines.append(f"large matrix products in {precision}: {flops / 1e9:,.0f} GFLOP/s")
    products = machine.get("products", [])
    if products:
        lines += ["", head(("tokens x inputs x outputs", "pass", "by rule", "times the other"))]
        lines += [f"| {p['shape']} | {p['pass']} | {p['by_rule']} | {p['times_the_other']:.2f} |" for p in products]
        wrong = [f"{p['shape']} ({p['pass']})" for p in products if p["times_the_other"] < WRONG]
        told = f"wrong here for {', '.join(wrong)}" if wrong else "right here"
        lines += ["", f"The rule of products (minirlhf/runtime/arithmetic.py, minirlhf/models/products.py) is {told}."]
    return "\n".join([*lines, *ended("machine", machine)])


def describe_checks(checks: Report) -> str:
    """The checks in words, a line each."""
    said = {True: "yes", False: "NO", None: "not known"}
    lines = []
    for name, words in CHECKS.items():
        if name == "same_samples_with_and_without_graphs" and name not in checks:
            continue  # of a GPU alone
        value = checks.get(name)
        lines.append(f"- {words}: {value if isinstance(value, float | str) else said[value]}")
    if checks.get("not_deterministic"):
        lines.append(f"- operations without a deterministic implementation: {', '.join(checks['not_deterministic'])}")
    return "\n".join([*lines, *ended("checks", checks)])


def ended(what: str, report: Report) -> list[str]:
    """A line where a part did not come to its end."""
    return [] if report["ended"] == DONE else [f"{what} not finished: {report['ended']}"]
