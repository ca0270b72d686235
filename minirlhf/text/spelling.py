"""One text in many spellings: what is put right in a row's texts, and when two prompts are the same post.

Nothing here is done to a text in silence: `data/clean.py` counts each of it by its name.
"""

import bisect
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# All that Python's `splitlines` takes for a line break, but for the line feed.
LINE_BREAKS = re.compile("\r*\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# At the ends of a text: white space, byte order marks, and what has no width.
EDGES = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\0\xad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
# Markers of an end, or a beginning, that other tools leave in texts: `<|endoftext|>`, `</s>`, `[EOS]`.
MARKER = r"<[|｜][^\s<>]{1,40}[|｜]>|</?s>|<(?:pad|eos|bos|eot|eod|sep|end_of_\w+)>|\[(?:PAD|EOS|BOS|EOT|SEP|CLS)\]"
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


def tidy(text: str) -> tuple[str, list[str]]:
    """A text with line feeds for line breaks and nothing invisible at its ends; the names of what was changed.

    >>> tidy("a\\r\\nb\\u200b "), tidy(" a")
    (('a\\nb', ['line_breaks', 'invisible']), ('a', []))
    """
    broken = LINE_BREAKS.sub("\n", text)
    bare = broken.strip(EDGES)
    return bare, ["line_breaks"] * (broken != text) + ["invisible"] * (len(bare) < len(broken.strip()))


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
            end = bisect.bisect_left(range(len(response)), len(target), key=lambda i: len(skeleton(response[:i])))
            return response[end:]
    return response


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
