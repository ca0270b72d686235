"""Who decides which summary is better: judges apart from the reward that PPO was trained on.

- `gold`: the truth, in the embedded world;
- `judge`: the one named in the params: a second reward model, a function, or a language model behind an endpoint;
- `reward`: the training reward itself. It is always reported, and decides only where there is nothing better: a policy
  trained on it is bound to win by it, so that says how far optimization went, not that summaries got better.

Most judges score a summary, and of two the one with the higher score wins; their scores are a measure of that name (see
`measures.py`). Others compare two summaries and give no scores (`pairwise.py`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minirlhf.settings.evaluation import JudgeParams

TRAINING_REWARD = "training reward"


def judge_names(has_gold: bool, judge: "JudgeParams | None") -> dict[str, str]:
    """Who judges, the one that decides first, each with the name a reader is told."""
    names = {"gold": "gold"} if has_gold else {}
    if judge is not None:
        names["judge"] = judge.name
    return names | {"reward": TRAINING_REWARD}
