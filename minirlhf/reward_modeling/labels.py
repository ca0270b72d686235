"""What the labels of comparisons are like: how far they agree where a pair was labelled more than once, what place has
to do with them, and on which of them a model is right.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from minirlhf.reward_modeling.quality import Scores, margins, share, sides
from minirlhf.statistics.bootstrap import Bootstrap, rounded

SMALLEST_SLICE = 20  # comparisons
LARGEST_GROUPS = 5  # of a column


def agreement(rows: Sequence[dict], bootstrap: Bootstrap) -> dict | None:
    """How far two labels of one pair agree, and how accurate anybody can be on such labels.

    A pair whose labels fall a share q on its likelier side cannot be guessed better than q. Two labels of it agree
    with q^2 + (1 - q)^2, of which many q are possible. Over pairs the mean of q, the ceiling, is at least the agreement
    A (some pairs certain, the others coins) and at most (1 + sqrt(2 A - 1)) / 2 (all pairs alike): Jensen's inequality
    on q(1 - q), from which both follow.

    Two labels by one voter say nothing of another voter and are left out; where no voter is named, every label counts.
    Where then no two labels ever agree, equal rows were taken out of the data, and there is no telling the ceiling.

    Returns:
        pairs: with two labels or more; agreement: of two of a pair's labels, with its interval over posts; ceiling:
        low and high, the bounds above, or None; None where no pair has two labels.
    """
    told = defaultdict(list)
    for row in rows:
        told[frozenset(sides(row))].append(row)
    shares, pairs = [], []
    for labels in told.values():
        others = [(a, b) for a, b in combinations(labels, 2) if "voter" not in a or a["voter"] != b.get("voter")]
        if others:
            shares.append(np.mean([sides(a) == sides(b) for a, b in others]))
            pairs.append(labels[0])
    if not pairs:
        return None
    found = share(np.array(shares), pairs, bootstrap)
    highest = (1 + math.sqrt(max(2 * found.value - 1, 0))) / 2
    bounds = {"low": rounded(max(found.value, 0.5)), "high": rounded(highest)}
    if found.value == 0 and not any("voter" in row for row in rows):
        bounds = None
    return {"pairs": len(pairs), "agreement": found.as_json(), "ceiling": bounds}


def position(rows: Sequence[dict], hits: np.ndarray | None, bootstrap: Bootstrap) -> dict | None:
    """What it matters which summary was shown first, on the comparisons that say so (`first`: chosen or rejected).

    A reward model reads one summary at a time and has no place to prefer; those who labelled have.

    Args:
        hits: of a model, one a comparison; None: of the labels.

    Returns:
        of the labels first_chosen, the share that went to the first one (a half without bias); of a model its accuracy
        where the first was chosen and where the second was; None where no comparison says so.
    """
    told = np.array([row.get("first") for row in rows], dtype=object)
    if hits is None:
        known = np.flatnonzero(told != None)  # noqa: E711  # of each element
        estimate = share((told[known] == "chosen").astype(float), [rows[index] for index in known], bootstrap)
        return estimate and {"first_chosen": estimate.as_json()}
    found = {}
    for name, side in (("first", "chosen"), ("second", "rejected")):
        inside = np.flatnonzero(told == side)
        estimate = share(hits[inside], [rows[index] for index in inside], bootstrap)
        found[f"accuracy_{name}_chosen"] = estimate and estimate.as_json()
    return found if any(found.values()) else None


def slices(rows: Sequence[dict], lengths: Scores, columns: Sequence[str]) -> list[tuple[str, str, np.ndarray]]:
    """Parts of the comparisons that are looked at apart: (slice, group, indices), those with SMALLEST_SLICE or more.

    By whether the longer summary was chosen, by thirds of the prompts' lengths in characters, and by the largest groups
    of `subreddit` and of the columns.
    """
    longer, prompts = margins(rows, lengths), np.array([len(row["prompt"]) for row in rows])
    first, second = np.quantile(prompts, [1 / 3, 2 / 3])
    found = [("chosen is", "the longer", longer > 0), ("chosen is", "the shorter", longer < 0)]
    found += [
        ("prompt, characters", f"up to {first:.0f}", prompts <= first),
        ("prompt, characters", f"{first:.0f} to {second:.0f}", (prompts > first) & (prompts <= second)),
        ("prompt, characters", f"over {second:.0f}", prompts > second),
    ]
    for column in ("subreddit", *columns):
        values = [row.get(column) or "" for row in rows]
        common = Counter(value for value in values if value).most_common(LARGEST_GROUPS)
        found += [(column, name, np.array([value == name for value in values])) for name, _ in sorted(common)]
    return [(kind, name, np.flatnonzero(inside)) for kind, name, inside in found if inside.sum() >= SMALLEST_SLICE]
