"""The TL;DR prompt format, and the one way in which text becomes tokens.

The format is that of Stiennon et al. 2020 (arXiv 2009.01325) as used since:

    SUBREDDIT: r/relationships\\n\\nTITLE: Help\\n\\nPOST: My housemate ...\\n\\nTL;DR:

A summary follows with one leading space, and EOS after it.
"""

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from minirlhf.runtime.errors import UserError
from minirlhf.text.chat import is_templated, spoken, written_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDING = "\n\nTL;DR:"
# In any spelling of the breaks between its parts.
FORMAT = re.compile(
    r"\s*SUBREDDIT:\s?r/(?P<subreddit>[^\n\t]*)\s+TITLE:(?P<title>.*?)[\n\t]\s{0,8}POST:(?P<body>.*)TL;DR:\s*",
    re.DOTALL,
)


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
    """`encode` of many texts at once, which is faster; of chats as their template writes them (`chat.py`)."""
    if not texts:
        return []
    chats = [written_for(tokenizer, text) for text in texts if is_templated(tokenizer, text)]
    if chats:  # in which special tokens are special
        encoded = iter(tokenizer(chats, add_special_tokens=False, verbose=False)["input_ids"])
        others = iter(encode_all(tokenizer, [text for text in texts if not is_templated(tokenizer, text)]))
        return [next(encoded if is_templated(tokenizer, text) else others) for text in texts]
    texts = [spoken(text) for text in texts]
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    rows = tokenizer(list(texts), verbose=False, **options)["input_ids"]
    special = _special_ids(tokenizer)
    if any(special.intersection(row) for row in rows):
        rows = tokenizer(spell_out(tokenizer, texts), verbose=False, **options)["input_ids"]
        found = [text for text, row in zip(texts, rows, strict=True) if special.intersection(row)]
        if found:
            raise UserError(f"the tokenizer finds a special token of its own in the text {found[0][:200]!r}")
    return rows


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    """What a model reads of prompts: their tokens, after those that its tokenizer begins every text with.

    A chat begins as its template says.
    """
    first, rows = first_tokens(tokenizer), encode_all(tokenizer, prompts)
    return [ids if is_templated(tokenizer, text) else first + ids for text, ids in zip(prompts, rows, strict=True)]


def first_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """What a tokenizer puts before every text: BOS, as Llama's, Gemma's and OPT's do, or nothing, as GPT-2's."""
    whole, text = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(whole) - len(text) + 1)
    return whole[: next((start for start in starts if whole[start : start + len(text)] == text), 0)]


def spell_out(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[str]:
    """The texts with a space inside whatever reads as a special token: `[ SEP]`.

    For tokenizers that have their special tokens in the vocabulary of text too (Unigram ones, as DeBERTa-v3's), where
    `split_special_tokens` does not keep them apart. The spelling may be another before normalization (NFKC).
    """
    normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
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


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of tokens without special tokens."""
    return _decode(tokenizer, ids, skip_special_tokens=True)


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], skip_special_tokens: bool) -> str:
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    return tokenizer.batch_decode([list(ids)], **options)[0]


def decode_response(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of a generated response, its leading space as generated, without the EOS that ends it.

    Any other special token stands in it as it is spelt, and an embedding that is no token as U+FFFD: a policy must not
    be able to write what a reward function does not see.
    """
    ids, known = list(ids), len(tokenizer)
    if ids[-1:] == [tokenizer.eos_token_id]:
        ids.pop()
    if max(ids, default=0) < known:
        return _decode(tokenizer, ids, skip_special_tokens=False)
    runs = itertools.groupby(ids, key=lambda token: token < known)
    return "".join(
        _decode(tokenizer, list(run), skip_special_tokens=False) if is_token else "\ufffd" * len(list(run))
        for is_token, run in runs
    )
