"""How authors summarize their posts: habits that readers do not like, and faults that happen to anybody.

A habit is what most authors do, so a model that imitates them does it, in its mode most of all. As on Reddit, where
references are what people wrote and not what readers prefer (Stiennon et al. 2020, arXiv 2009.01325, section 4.1):
they open with a filler, close with another, and leave out when it happened and what they want. A fault is what few
summaries have: it averages out in the mode of a model that imitates.

The rates are those of a first study, set once and not tuned to any result.
"""

import random

from minirlhf.world.grammar import SLOTS
from minirlhf.world.posts import Record, join_clauses, other_value, state_facts

# Habits: shares of the summaries at habits = 1, each independent of the others; at 0 there is none.
OPENERS, OPENING = ("long story short", "sorry for the rant"), 0.60
CLOSER, CLOSING = "thanks for reading", 0.55
OMITTED = {"time": 0.60, "wish": 0.60}  # and no less than a slot is left out by fault
# Faults, whatever the habits.
LEFT_OUT = {"feeling": 0.20}  # chance to leave out a slot; others:
LEFT_OUT_ELSE = 0.08
WRONG = 0.20  # one fact has another value: half of the time one that the post names of something else, where it does
TWICE = 0.10  # a clause stands twice


def write_summary(rng: random.Random, record: Record, distractions: Record, habits: float = 1.0) -> str:
    """One author's summary of a record, without the leading space.

    Args:
        distractions: values that the post names of something else, by slot.
        habits: how much of their rates the habits have, from 0 to 1.
    """
    told = dict(record)
    for slot in SLOTS:
        fault = LEFT_OUT.get(slot, LEFT_OUT_ELSE)
        if rng.random() < fault + habits * (OMITTED.get(slot, fault) - fault):
            del told[slot]
    if told and rng.random() < WRONG:
        slot = rng.choice(list(told))
        misread = slot in distractions and rng.random() < 0.5
        told[slot] = distractions[slot] if misread else other_value(rng, slot, record[slot])
    clauses = state_facts(rng, told)
    if rng.random() < TWICE:
        clauses.append(rng.choice(clauses))
    if rng.random() < habits * OPENING:
        clauses.insert(0, rng.choice(OPENERS))
    if rng.random() < habits * CLOSING:
        clauses.append(CLOSER)
    return join_clauses(rng, clauses)
