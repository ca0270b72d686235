"""One text in many spellings: what is put right in a row's texts, and when two prompts are the same post.

Nothing here is done to a text in silence: `data/clean.py` counts each of it by its name.
"""

import bisect
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from minirlhf.runtime.files import is_unicode

# All that Python's `splitlines` takes for a line break, but for the line feed.
LINE_BREAKS = re.compile("\r*\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# At the ends of a text: white space, byte order marks, and what has no width.
EDGES = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\0\xad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
# Markers of an end, or a beginning, that other tools leave in texts: `<|endoftext|>`, `</s>`, `[EOS]`.
MARKER = (
    r"<[|｜][^\s<>]{1,40}[|｜]>|</?s>|<(?:pad|eos|bos|eot|eod|sep|end_of_\w+)>"
    r"|\[(?:PAD|EOS|BOS|EOT|SEP|CLS|end of text)\]"
)
ENDS_A_PROMPT = r"<\|end_?of_?text\|>|</?s>|<(?:pad|eos|eod)>|\[(?:PAD|EOS|EOD)\]"  # `<|assistant|>` opens the answer
TLDR = r"(?:tl\s?[;；:,./]?\s?dr\b|too long[;,]? did\s?n['’]?t read\b)"
SUMMARY = r"(?:(?:the |a |post |short |brief )?summary\s?(?=[:：*]|\n))"
MARKUP = r"[#>*_ \t]{0,8}"
# A heading as a summary may repeat it, and as it closes a prompt.
HEADING = re.compile(rf"{MARKUP}(?:{TLDR}|{SUMMARY}){MARKUP}[:：\-–—.]?{MARKUP}", re.IGNORECASE)
CLOSING = re.compile(rf"(?:^|(?<=\s)){MARKUP}(?:{TLDR}|{SUMMARY}){MARKUP}[:：]?{MARKUP}$", re.IGNORECASE)
LONGEST_HEADING = 60  # characters
# The TL;DR layout in any spelling, its parts optional.
LABELS = r"(?:POST|ARTICLE|TEXT|DOCUMENT)\s?:"
LAYOUT = re.compile(
    r"(?:SUBREDDIT\s?:\s*(?P<subreddit>\S*)\s+)?"
    rf"(?P<titled>TITLE\s?:(?P<title>.*?)[\n\t]\s{{0,8}}(?={LABELS}))?"
    rf"(?P<labelled>{LABELS})?(?P<body>.*)",
    re.IGNORECASE | re.DOTALL,
)
REPEATED = 20  # letters of a prompt that a response does not begin with by chance
# What an answer stands under: `TL;DR:` anywhere; another label at the beginning of a line.
ANSWERED = re.compile(
    rf"{MARKUP}{TLDR}{MARKUP}[:：\-–—.]?{MARKUP}"
    rf"|^{MARKUP}(?:{SUMMARY}|(?:answer|response|output|completion|assistant|a)\s?(?=:)){MARKUP}[:：]{MARKUP}",
    re.IGNORECASE | re.MULTILINE,
)
ENDED = re.compile(r"[*_]*(?:[.!?]+[*_]*\s|[ \t]*\n)")  # an answer, which else is the beginning of another sentence
# A line break as JSON writes it; before no small letter, as in the formula `x\neq y` and the folder `C:\new`.
ESCAPED_BREAK = re.compile(r"(?<![\s`'\"\\])(?:\\r)?\\n(?![\s`'\"a-z])")
ESCAPE = re.compile(r"\\(?P<one>[nrt\"'/\\])|(?:\\u[0-9a-fA-F]{4})+")


def tidy(text: str) -> tuple[str, list[str]]:
    """A text with line feeds for line breaks and nothing invisible at its ends; the names of what was changed.

    >>> tidy("a\\r\\nb\\u200b "), tidy(" a")
    (('a\\nb', ['line_breaks', 'invisible']), ('a', []))
    """
    broken = LINE_BREAKS.sub("\n", text)
    bare = broken.strip(EDGES)
    return bare, ["line_breaks"] * (broken != text) + ["invisible"] * (len(bare) < len(broken.strip()))


def unescape(texts: list[str]) -> list[str]:
    r"""The texts of a row, with line breaks for `\n` and the like where they were escaped once too often.

    They were where none of them has a line break, and one has `\n` in the place of one. In any other row `\n` is text.

    >>> unescape([r"POST: He said \"no\".\n\nTL;DR:", "no"]), unescape([r"Is x\neq y?"])
    (['POST: He said "no".\n\nTL;DR:', 'no'], ['Is x\\neq y?'])
    """
    if any(map(LINE_BREAKS.search, texts)) or not any(map(ESCAPED_BREAK.search, texts)):
        return texts
    return [ESCAPE.sub(_unescaped, text) for text in texts]


def _unescaped(match: re.Match[str]) -> str:
    if match["one"] is not None:
        return {"n": "\n", "r": "\r", "t": "\t"}.get(match["one"], match["one"])
    found = json.loads(f'"{match[0]}"')
    return found if is_unicode(found) else match[0]


def strip_markers(text: str, special: Iterable[str], marker: str = MARKER) -> str:
    """A text without the markers that it ends or begins with; those of a tokenizer are `special`.

    >>> strip_markers("My cat left.</s> <pad><pad>", [])
    'My cat left.'
    """
    own = [re.escape(token) for token in special if len(token.strip()) > 1]  # a full stop may be one
    any_marker = "|".join([f"(?i:{marker})", *own])
    ending, beginning = re.compile(f"(?:{any_marker})$"), re.compile(f"(?:{any_marker})(?:assistant\\b)?\\s*")
    while match := ending.search(text, max(0, len(text) - LONGEST_HEADING)):
        text = text[: match.start()].rstrip()
    while match := beginning.match(text):
        text = text[match.end() :]
    return text


def find_closing(prompt: str) -> int:
    """Where the heading that closes a prompt begins; its length where there is none.

    >>> find_closing("My cat left.\\n\\nTL;DR:"), find_closing("My cat left.")
    (14, 12)
    """
    end = len(prompt.rstrip())
    match = CLOSING.search(prompt[:end], max(0, end - LONGEST_HEADING))
    return match.start() if match else len(prompt)


def strip_heading(summary: str, prompt: str) -> str:
    """A summary without the heading that closes its prompt, or any `TL;DR:`, at its head.

    >>> strip_heading("TLDR - my cat left", "..."), strip_heading("Answer: 4", "2+2?\\n\\nAnswer:")
    ('my cat left', '4')
    """
    last, closes = prompt.rstrip().rpartition("\n")[2], find_closing(prompt) < len(prompt)
    while True:
        match = HEADING.match(summary)
        if match and (closes or re.search(TLDR, match[0], re.IGNORECASE)):
            summary = summary[match.end() :].lstrip()
        elif last.endswith(":") and len(last) < LONGEST_HEADING and summary.startswith(last):
            summary = summary[len(last) :].lstrip()
        else:
            return summary


def strip_prompt(response: str, prompt: str, certain: bool = False) -> str:
    """A response without the prompt that it repeats at its head, in any spelling, with or without SUBREDDIT and TITLE.

    Args:
        certain: take off a short prompt too, whose words a response may begin with by chance.
    """
    letters, layout = skeleton(response), _layout(prompt)
    starts = [0, layout.start("titled"), layout.start("labelled")]
    wholes = [prompt[start:] for start in sorted({*starts} - {-1})]
    repeated = [part for whole in wholes for part in (whole, whole[: find_closing(whole)])]
    if find_closing(prompt) < len(prompt):  # without it a summary may be the whole of a short post
        repeated.append(layout["body"])
    for target in repeated:
        if not letters.startswith(skeleton(target[:REPEATED])):  # nearly always, and quickly known
            continue
        target = skeleton(target)
        sure = len(target) >= REPEATED or (certain and target == skeleton(prompt) != "")
        if sure and letters.startswith(target):
            return response[_length_of(target, response) :]
    return response


def strip_answer(prompt: str, answer: str) -> str:
    r"""A prompt without the answer that it has already, in any spelling: under `TL;DR:`, or last and under `Answer:`.

    The heading goes too, unless the prompt ends with it then. An answer that is only among a post's sentences stays.

    >>> strip_answer("My cat left.\n\nTL;DR: cat left", "cat left"), strip_answer("tl;dr: cats\n\nThey left.", "cats")
    ('My cat left.\n\nTL;DR:', 'They left.')
    """
    letters = skeleton(answer)
    for match in reversed(list(ANSWERED.finditer(prompt))):
        rest = prompt[match.end() :].lstrip()
        if skeleton(rest[:REPEATED])[:4] != letters[:4] or not skeleton(rest).startswith(letters):
            continue
        rest = rest[_length_of(letters, rest) :]
        if not rest.strip(" \t\n.*_"):
            return prompt[: match.end()].rstrip()
        if (end := ENDED.match(rest)) and re.search(TLDR, match[0], re.IGNORECASE):
            return f"{prompt[: match.start()].rstrip()}\n\n{rest[end.end() :].lstrip()}".lstrip()
    return prompt


def ends_with_answer(prompt: str, answer: str) -> bool:
    """Whether a prompt ends with its answer, in any spelling, under no heading, and not by chance.

    >>> ends_with_answer("She was fed. My cat left on a Tuesday night.", "my cat left on a Tuesday night")
    True
    """
    letters, end = skeleton(answer), skeleton(prompt.rstrip(" \t\n.")[-2 * len(answer) - REPEATED :])
    return len(letters) >= REPEATED and end.endswith(letters.rstrip("."))


def _length_of(letters: str, text: str) -> int:
    """How many characters of a text, whose skeleton begins with these letters, they are."""
    return bisect.bisect_left(range(len(text)), len(letters), key=lambda end: len(skeleton(text[:end])))


def repeats(response: str, prompt: str) -> bool:
    """Whether a response begins with the prompt, in any spelling."""
    letters = skeleton(response)
    return letters.startswith(skeleton(prompt[:REPEATED])) and letters.startswith(skeleton(prompt))


def _layout(prompt: str) -> re.Match[str]:
    """The parts of a prompt, all of which but the body may be missing."""
    match = LAYOUT.fullmatch(prompt)
    assert match is not None  # any text is a body
    return match


def body_of(prompt: str) -> str:
    """A prompt without SUBREDDIT, TITLE, the label of its text and the heading that closes it."""
    return _layout(prompt[: find_closing(prompt)].strip())["body"]


def plain(text: str) -> str:
    """A text for comparison: composed, without what is invisible, one space for any white space."""
    visible = unicodedata.normalize("NFC", text).translate(_invisible())
    return " ".join(visible.split())


def skeleton(text: str) -> str:
    """What is left of a text in every spelling of it: no case, white space, accents' forms or shapes of quotes.

    >>> skeleton("He said  “No”\\r\\n") == skeleton("he said \\"no\\"")
    True
    """
    folded = unicodedata.normalize("NFKD", text.translate(_invisible())).casefold().translate(SHAPES)
    return "".join(folded.split())


SHAPES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})


@cache
def _invisible() -> dict[int, str | None]:
    """Format and control characters and variation selectors: None; those that are white space: a space."""
    kinds = {code: unicodedata.category(chr(code)) for code in range(0x10000)}
    table: dict[int, str | None] = {code: None for code, kind in kinds.items() if kind == "Cf"}
    table |= {code: " " if chr(code).isspace() else None for code, kind in kinds.items() if kind == "Cc"}
    return table | dict.fromkeys(range(0xFE00, 0xFE10))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return not plain(text)


def same_post(prompt: str) -> tuple[set[str], set[str]]:
    """Names of the post in a prompt: its own, and those under which the same post may have been met.

    Prompts are of one post where their bodies and titles are the same in any spelling, or their bodies, where one of
    them has no title. SUBREDDIT, labels and the heading that closes a prompt do not count.
    """
    match = _layout(prompt[: find_closing(prompt)].strip())
    title, body = skeleton(match["title"] or ""), skeleton(match["body"])
    if not title:
        return {f"untitled {body}"}, {f"untitled {body}", f"titled {body}"}
    return {f"{title}\0{body}", f"titled {body}"}, {f"{title}\0{body}", f"untitled {body}"}


def names_of(row: dict) -> set[bytes]:
    """What the post of a prepared row is known by: digests of its names, which prepare notes where the post is cut."""
    if "names" in row:
        return set(map(bytes.fromhex, row["names"]))
    return set(map(digest, same_post(said(row))[0]))


def without(rows: Iterable[dict], posts: Iterable[dict]) -> list[dict]:
    """The rows that are of none of these posts, in any spelling, cut or whole."""
    names = set().union(*map(names_of, posts))
    return [row for row in rows if not names & set(map(digest, same_post(said(row))[1]))]


def said(row: dict) -> str:
    """What the prompt of a row in its shape says, by which its post is known: of a chat all but system messages."""
    messages = row.get("messages") or row["prompt"]
    if isinstance(messages, str):
        return messages
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
