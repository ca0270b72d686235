"""Sequences in passes of like length, so that little is padded.

A pass of about a thousand tokens keeps a CPU's units busy, and its activations in the cache; a GPU takes many more.
"""

from collections.abc import Hashable, Iterator, Sequence

PASS_TOKENS = {"cpu": 1024}
PASS_TOKENS_ACCELERATOR = 32_768


def pass_tokens(device_type: str) -> int:
    """Tokens that one pass should have at most."""
    return PASS_TOKENS.get(device_type, PASS_TOKENS_ACCELERATOR)


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices of sequences in an order in which groups of neighbours need little padding, and the largest come first.

    >>> longest_first([5, 9, 6, 2])
    [1, 2, 0, 3]
    """
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


def longest_alike(prompts: Sequence[Hashable], lengths: Sequence[int]) -> list[int]:
    """Of each sequence, the length of the longest one with the same prompt.

    >>> longest_alike(["ab", "c", "ab"], [4, 5, 6])
    [6, 5, 6]
    """
    longest: dict[Hashable, int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        longest[prompt] = max(length, longest.get(prompt, 0))
    return [longest[prompt] for prompt in prompts]


def alike_together(prompts: Sequence[Hashable], lengths: Sequence[int]) -> list[int]:
    """Indices of sequences of `lengths`, the longest first, but those with the same prompt together.

    >>> alike_together(["ab", "c", "ab"], [4, 5, 6])
    [2, 0, 1]
    """
    first: dict[Hashable, int] = {}
    for at, prompt in enumerate(prompts):
        first.setdefault(prompt, at)
    longest = longest_alike(prompts, lengths)
    return sorted(range(len(lengths)), key=lambda at: (-longest[at], first[prompts[at]], -lengths[at]))


def passes(order: Sequence[int], tokens: Sequence[int], device_type: str) -> Iterator[list[int]]:
    """The indices of `order` in passes; `tokens` is how many each index comes with. A pass has one index at least.

    >>> list(passes([1, 0, 2], [600, 500, 300], "cpu"))
    [[1], [0, 2]]
    """
    limit, chosen, filled = pass_tokens(device_type), [], 0
    for index in order:
        if chosen and filled + tokens[index] > limit:
            yield chosen
            chosen, filled = [], 0
        chosen.append(index)
        filled += tokens[index]
    if chosen:
        yield chosen
