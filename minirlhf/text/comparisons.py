"""Comparisons of two summaries of a post, brought together by post."""

from collections.abc import Iterable


def group_comparisons(rows: Iterable[dict]) -> list[dict]:
    """Bring comparisons of the same post together, so that each summary is encoded once, not once a comparison.

    >>> group_comparisons([{"prompt": "p", "chosen": " a", "rejected": " b"},
    ...                    {"prompt": "p", "chosen": " b", "rejected": " c"}])
    [{'prompt': 'p', 'summaries': [(' a', True), (' b', True), (' c', True)], 'pairs': [(0, 1), (1, 2)]}]

    A summary is (text, whether it ended by itself); `chosen_ended` and `rejected_ended` say so, true where absent. A
    pair is (index of the chosen, index of the rejected).
    """
    groups: dict[str, dict] = {}
    for row in rows:
        group = groups.setdefault(row["prompt"], {"prompt": row["prompt"], "summaries": [], "pairs": []})
        pair = []
        for side in ("chosen", "rejected"):
            summary = (row[side], row.get(f"{side}_ended", True))
            if summary not in group["summaries"]:
                group["summaries"].append(summary)
            pair.append(group["summaries"].index(summary))
        group["pairs"].append(tuple(pair))
    return list(groups.values())
