"""The TL;DR prompt format, its truncation, and the one way in which text becomes tokens.

The format is that of Stiennon et al. 2020 (arXiv 2009.01325) as used since:

    SUBREDDIT: r/relationships\\n\\nTITLE: Help\\n\\nPOST: My housemate ...\\n\\nTL;DR:

A summary follows with one leading space, and EOS after it.
"""

import bisect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from minirlhf.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDING = "\n\nTL;DR:"
FORMAT = re.compile(r"SUBREDDIT: r/(?P<subreddit>[^\n]*)\n\nTITLE:(?P<title>.*?)\n\nPOST:(?P<body>.*)TL;DR:", re.DOTALL)
# Where a post may be cut, best first: before a line break, after a sentence, before a space, between letters.
BREAKS = [re.compile(at) for at in (r"(?=\n)", r"(?:(?<=[.!?])|(?<=[.!?]['\")]))(?=\s)", r"(?=\s)", r"")]


class Post(NamedTuple):
    """The parts of a prompt in the TL;DR format."""

    subreddit: str  # without "r/"
    title: str
    body: str


def build_prompt(post: Post) -> str:
    """The prompt of a post.

    >>> build_prompt(Post("advice", "Help", "My cat left."))
    'SUBREDDIT: r/advice\\n\\nTITLE: Help\\n\\nPOST: My cat left.\\n\\nTL;DR:'
    """
    return f"SUBREDDIT: r/{post.subreddit}\n\nTITLE: {post.title}\n\nPOST: {post.body}{ENDING}"


def parse_prompt(prompt: str) -> Post | None:
    """The parts of a prompt, or None where it is not in the TL;DR format."""
    match = FORMAT.fullmatch(prompt.strip())
    return Post(*(part.strip() for part in match.groups())) if match else None


def build_completion(summary: str) -> str:
    """A summary as it follows a prompt: one leading space, none at the end. EOS is a token, added later.

    >>> build_completion("  Cat left. ")
    ' Cat left.'
    """
    return f" {summary.strip()}"


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The tokens of a text as it is: nothing is added, and `<|endoftext|>` inside a post stays text."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """`encode` of many texts at once, which is faster."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    rows = tokenizer(list(texts), verbose=False, **options)["input_ids"]
    special = _special_ids(tokenizer)
    if any(special.intersection(row) for row in rows):
        rows = tokenizer(spell_out(tokenizer, texts), verbose=False, **options)["input_ids"]
        found = [text for text, row in zip(texts, rows, strict=True) if special.intersection(row)]
        if found:
            raise UserError(f"the tokenizer finds a special token of its own in the text {found[0][:200]!r}")
    return rows


def spell_out(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[str]:
    """The texts with a space inside whatever reads as a special token: `[ SEP]`.

    For tokenizers that have their special tokens in the vocabulary of text too (Unigram ones, as DeBERTa-v3's), where
    `split_special_tokens` does not keep them apart. The spelling may be another before normalization (NFKC).
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    spelt = []
    for text in texts:
        normal = normalizer.normalize_str(text) if normalizer is not None else text
        if any(token in normal for token in tokenizer.all_special_tokens):
            text = normal
            for token in tokenizer.all_special_tokens:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        spelt.append(text)
    return spelt


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids that no text may turn into: of all special tokens, but for one that only stands for unknown text."""
    special = set(tokenizer.all_special_ids)
    roles = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id)
    return special if tokenizer.unk_token_id in roles else special - {tokenizer.unk_token_id}


def truncate_prompt(prompt: str, max_tokens: int, count_tokens: Callable[[str], int]) -> str | None:
    """The prompt with its post cut so that it has at most `max_tokens` tokens; None if that cannot be.

    The cut is at the last line break that fits, else after the last sentence, else at the last space, else
    between letters. SUBREDDIT, TITLE and TL;DR: are always kept, and something of the post. A prompt in
    another format is cut as if it were all post; its TL;DR: is kept if it ends so.

    With one token a word (`count_tokens=lambda text: len(text.split())`), the prompt of r/a, TITLE: b and the
    post "One two. Three four.\\nFive" has 11 tokens, 6 of which are not the post's:

        max_tokens  post
        11          One two. Three four.\\nFive
        10          One two. Three four.
        9           One two.
        7           One
        6           None
    """
    if count_tokens(prompt) <= max_tokens:
        return prompt
    post = parse_prompt(prompt)
    if post is not None:
        build, body = lambda part: build_prompt(post._replace(body=part)), post.body
    elif prompt.endswith(ENDING):
        build, body = lambda part: part + ENDING, prompt.removesuffix(ENDING)
    else:
        build, body = str, prompt
    part = truncate_text(body, lambda part: count_tokens(build(part)) <= max_tokens)
    return None if part is None else build(part)


def truncate_text(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning that fits and ends at the best kind of break (BREAKS); None if there is none.

    `fits` is taken to be monotonic, as token counts nearly are; what is returned does fit in any case.
    """
    text = text.strip()
    if fits(text):
        return text
    for pattern in BREAKS:
        ends = [match.start() for match in pattern.finditer(text) if match.start() > 0]
        index = bisect.bisect_left(ends, True, key=lambda end: not fits(text[:end].rstrip()))
        if index:
            return text[: ends[index - 1]].rstrip()
    return None


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of generated tokens without special tokens, its leading space as generated."""
    return tokenizer.batch_decode([list(ids)], skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]
