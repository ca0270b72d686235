"""What a reward function is, how it is called, and what is refused.

A reward function is any callable `(prompts: list[str], responses: list[str]) -> scores` with one number a response: a
list or a 1-D tensor or array. Parameters named `ended` and `response_ids` are passed if its signature has them:

- `ended: list[bool]`: the response ended by itself (EOS was generated), it was not cut at the length limit;
- `response_ids: list[list[int]]`: the policy's own tokens, EOS included where generated. A function that takes them
  may return one score a token instead: a list of sequences as long as the responses.

Responses are decoded with the leading space as generated. The EOS that ends one is left out; any other special token of
the policy's is there as it is spelt (`<|im_start|>`), so that none can be written for free.
"""

import inspect
from collections.abc import Callable, Sequence

from minirlhf.runtime.errors import UserError

RewardFunction = Callable[..., Sequence[float]]
LARGEST = 3.4e38  # of a 32-bit number, in which scores are learnt from


class RewardError(UserError):
    """A reward function raised, or returned something that is no score; the message shows the text at fault."""


def call_reward(
    reward: RewardFunction,
    prompts: list[str],
    responses: list[str],
    ended: list[bool],
    response_ids: list[list[int]],
) -> list[float] | list[list[float]]:
    """Scores of B responses: B numbers, or B lists of one number a token.

    Raises RewardError, naming the function and showing the text, if it raises, returns another count than B, or a
    score that is not a finite number.
    """
    name = getattr(reward, "__name__", type(reward).__name__)
    extra = {"ended": ended, "response_ids": response_ids}
    wanted = _optional_parameters(reward)
    try:
        scores = reward(list(prompts), list(responses), **{key: extra[key] for key in wanted})
    except UserError:
        raise
    except Exception as error:
        raise RewardError(
            f"reward {name} raised {error!r} on a batch that starts with {show(prompts, responses, 0)}"
        ) from error
    scores = _to_lists(scores, name)
    if len(scores) != len(responses):
        raise RewardError(
            f"reward {name} returned {len(scores)} scores for {len(responses)} responses; "
            f"the first is {show(prompts, responses, 0)}"
        )
    for index, score in enumerate(scores):
        _check_score(name, score, len(response_ids[index]), "response_ids" in wanted, prompts, responses, index)
    kinds = {isinstance(score, list) for score in scores}
    if len(kinds) == 2:
        raise RewardError(f"reward {name} mixes scores a response and scores a token in one batch")
    return scores


def _optional_parameters(reward: RewardFunction) -> list[str]:
    """Which of the optional inputs the function's signature names."""
    try:
        parameters = inspect.signature(reward).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return []
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return ["ended", "response_ids"]
    return [key for key in ("ended", "response_ids") if key in parameters]


def _to_lists(scores, name: str) -> list:
    """Plain Python lists from a list, tensor or array, possibly nested."""
    scores = scores.tolist() if hasattr(scores, "tolist") else scores
    if not isinstance(scores, (list, tuple)):
        raise RewardError(f"reward {name} returned {type(scores).__name__}, not a list of scores")
    scores = [score.tolist() if hasattr(score, "tolist") else score for score in scores]
    return [list(score) if isinstance(score, tuple) else score for score in scores]


def _check_score(name, score, tokens, per_token_allowed, prompts, responses, index) -> None:
    if isinstance(score, list):
        if not per_token_allowed:
            raise RewardError(f"reward {name} returned a list for one response; only one that takes response_ids may")
        if len(score) != tokens:
            shown = show(prompts, responses, index)
            raise RewardError(f"reward {name} returned {len(score)} scores for the {tokens} tokens of {shown}")
    for number in score if isinstance(score, list) else [score]:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < LARGEST:
            returned = "an integer beyond 3.4e38" if type(number) is int else repr(number)
            raise RewardError(f"reward {name} returned {returned} for {show(prompts, responses, index)}")


def show(prompts: list[str], responses: list[str], index: int) -> str:
    """The response and the end of its prompt, shortened, on one line."""
    if index >= len(responses):
        return "(no response)"
    prompt, response = prompts[index], responses[index]
    prompt = prompt if len(prompt) <= 80 else "..." + prompt[-77:]
    response = response if len(response) <= 300 else response[:297] + "..."
    return f"response {response!r} to prompt {prompt!r}"
