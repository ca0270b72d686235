"""What a summary is like as text: how much is copied, how much is repeated, how varied a system's summaries
are.

Words are runs of letters, digits and apostrophes, in lower case; each character is one in scripts that put no spaces
between words. None of this asks whether a summary is good:
it shows what a policy changed in order to be rewarded.
"""

import unicodedata
from collections import defaultdict

import numpy as np
import regex

TITLE_SHARE = 0.8
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Tibetan}\p{Myanmar}\p{Khmer}]"
# In patterns of `regex` (V1): a character that is a word, and a run of letters, digits and the marks on them.
ONE = rf"[{_UNSPACED}&&[\p{{L}}\p{{N}}\p{{M}}]]"
RUN = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]*"
_WORD = regex.compile(rf"{ONE}|{RUN}(?:['’]{RUN})*", regex.V1)


def words(text: str) -> list[str]:
    """The words of a text, in lower case.

    >>> words("My brother's TV broke.")
    ['my', "brother's", 'tv', 'broke']
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def extractive_fragments(post: list[str], summary: list[str]) -> list[int]:
    """Lengths of the runs of words that a summary shares with its post, found greedily (Grusky et al. 2018,
    figure 3).

    >>> extractive_fragments("a b c d e".split(), "b c x d e a".split())
    [2, 2, 1]
    """
    places = defaultdict(list)
    for index, word in enumerate(post):
        places[word].append(index)
    lengths, at = [], 0
    while at < len(summary):
        longest = 0
        for start in places.get(summary[at], ()):
            run = 1
            while at + run < len(summary) and start + run < len(post) and summary[at + run] == post[start + run]:
                run += 1
            longest = max(longest, run)
        if longest:
            lengths.append(longest)
        at += max(longest, 1)
    return lengths


def coverage_and_density(post: str, summary: str) -> tuple[float, float]:
    """Extractive fragment coverage and density (Grusky et al. 2018, equations 1 and 2); both 0 for an empty
    summary.

    Coverage is the share of the summary's words that lie in fragments copied from the post (0..1), density
    the mean length, in words, of the fragment that a word of the summary lies in.
    """
    told = words(summary)
    if not told:
        return 0.0, 0.0
    fragments = extractive_fragments(words(post), told)
    return sum(fragments) / len(told), sum(length**2 for length in fragments) / len(told)


def copies_title(title: str, summary: str) -> bool:
    """Whether a summary is little else than its post's title: TITLE_SHARE of its words in runs of it, of two or more.

    >>> copies_title("My brother broke the TV", "so my brother broke the TV")
    True
    >>> copies_title("the TV", "the cat broke TV")
    False
    """
    told = words(summary)
    runs = [length for length in extractive_fragments(words(title), told) if length > 1]
    return bool(told) and sum(runs) >= TITLE_SHARE * len(told)


def repetition(summary: str, n: int = 3) -> float:
    """The share of a summary's n-grams of words that stood in it before; 0 where it has fewer than n words.

    >>> repetition("so sad so sad so sad")
    0.5
    """
    grams = _ngrams(words(summary), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(summaries: list[str], n: int) -> float:
    """Distinct n-grams by all n-grams of a set of summaries (distinct-n, Li et al. 2016); 0 where there is
    none."""
    grams = [gram for summary in summaries for gram in _ngrams(words(summary), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def duplicates(summaries: list[str]) -> float:
    """The share of summaries whose words are those of an earlier one: near 1, a policy says the same of every
    post."""
    return 1 - len({" ".join(words(summary)) for summary in summaries}) / len(summaries)


def describe(posts: list[str], summaries: list[str]) -> dict[str, np.ndarray]:
    """For each summary: `words`, `coverage`, `density` (see `coverage_and_density`) and `repetition` of
    trigrams."""
    copied = [coverage_and_density(post, summary) for post, summary in zip(posts, summaries, strict=True)]
    return {
        "words": np.array([float(len(words(summary))) for summary in summaries]),
        "coverage": np.array([coverage for coverage, _ in copied]),
        "density": np.array([density for _, density in copied]),
        "repetition": np.array([repetition(summary) for summary in summaries]),
    }


def _ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
