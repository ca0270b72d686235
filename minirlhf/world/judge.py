"""The gold judge of the embedded world: it knows the record behind a post and reads a summary back against it.

    score = facts covered - facts wrong - 0.5 filler clauses - 0.5 facts said again - clauses nobody could parse
            - 0.1 for every word beyond 40 - 2 when the summary never ended

The best score is 6, one for each slot. A fact counts only where a grammatical clause states it: a list of keywords
covers nothing. Training never sees this score, except through the simulated annotators (`annotators.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from minirlhf.world.grammar import EVENT_CLAUSES, FEELING_CLAUSES, FILLER_CLAUSES, SLOTS, VAGUE, VALUES, WISH_CLAUSES

WORD_LIMIT = 40  # the longest complete summary without filler has 27 words
WEIGHTS = {
    "covered": 1.0,
    "wrong": -1.0,
    "filler": -0.5,
    "repeated": -0.5,
    "unparsable": -1.0,
    "over_length": -0.1,
    "unended": -2.0,
}
BEST_SCORE = len(SLOTS) * WEIGHTS["covered"]


@dataclass(frozen=True)
class Judgement:
    """What the judge saw in one summary.

    Attributes:
        score: the gold score, at most `BEST_SCORE`.
        parts: counts by name, the keys of `WEIGHTS` (facts, clauses or words, before weighting).
        facts: for each slot "covered", "wrong" or "missing" (a slot told both right and wrong is "wrong").
    """

    score: float
    parts: dict[str, int]
    facts: dict[str, str]


@cache
def _clause_patterns() -> tuple[re.Pattern, ...]:
    def one_of(values: Sequence[str]) -> str:
        return "|".join(re.escape(v) for v in sorted(values, key=len, reverse=True))

    slot = {name: f"(?P<{name}>{one_of(values)})" for name, values in VALUES.items()}
    parts = {
        "{who}": f"(?:my {slot['relation']}|{VAGUE['relation']})",
        "{did}": f"(?:{slot['verb']}|{VAGUE['verb']})",
        "{what}": f"(?:my {slot['object']}|{VAGUE['object']})",
        **{f"{{{name}}}": pattern for name, pattern in slot.items()},
    }
    patterns = []
    for form in (*EVENT_CLAUSES, *FEELING_CLAUSES, *WISH_CLAUSES):
        for hole, pattern in parts.items():
            form = form.replace(hole, pattern)
        patterns.append(re.compile(form))
    return tuple(patterns)


def read_clause(clause: str) -> dict[str, str] | None:
    """The facts (slot -> value) that one clause states; {} for filler, None when it is no clause of the language."""
    if clause in FILLER_CLAUSES:
        return {}
    for pattern in _clause_patterns():
        if match := pattern.fullmatch(clause):
            return {name: value for name, value in match.groupdict().items() if value is not None}
    return None


def judge(summary: str, record: dict[str, str], ended: bool = True) -> Judgement:
    """Judge a summary against the record of its post.

    Args:
        summary: any text; upper and lower case, and the space around it, make no difference.
        record: slot -> value for every slot.
        ended: whether the summary ended by itself rather than at the length limit.
    """
    words = summary.lower().split()
    clauses = [c for c in re.split(r"[.?!,]+(?:\s|$)|\sand\s", " ".join(words)) if c.strip()]
    parts = dict.fromkeys(WEIGHTS, 0)
    told: dict[str, list[str]] = {slot: [] for slot in SLOTS}
    for clause in clauses:
        clause = clause.strip()
        facts = read_clause(clause)
        if facts is None:
            parts["unparsable"] += 1
        elif clause in FILLER_CLAUSES:
            parts["filler"] += 1
        else:
            for slot, value in facts.items():
                told[slot].append(value)
    facts = {}
    for slot, values in told.items():
        right = record[slot] in values
        wrong = len(set(values) - {record[slot]})
        parts["covered"] += right
        parts["wrong"] += wrong
        parts["repeated"] += len(values) - len(set(values))
        facts[slot] = "wrong" if wrong else "covered" if right else "missing"
    parts["over_length"] = max(0, len(words) - WORD_LIMIT)
    parts["unended"] = int(not ended)
    score = round(sum(WEIGHTS[name] * count for name, count in parts.items()), 6)
    return Judgement(score, parts, facts)
