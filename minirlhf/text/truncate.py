"""How a prompt that is too long is shortened: where its body is, and what must stay.

The rule, in this order:

1. `data.body` of the params: a regular expression whose group `body` is what may be cut; all else stays.
2. A dialogue, which ends with the opened turn of one of its speakers (`Assistant:`): the oldest turns go, two at a
   time; what stands before the first turn, the last turn and the opened one stay. A turn longer than all others
   together is the body instead, and is cut; so is a text before them that is longer than all of them.
3. Sections: blocks between blank lines. What closes the prompt stays: a heading (`TL;DR:`), last lines that end with a
   colon, and blocks before them with a label of their own (`Question: ...`); where there is nothing of the kind, a
   short last block. What opens it stays likewise, where a block is left after it: blocks with a label or a colon at
   their end, and a short first block. What is left is the body; the longest block is never taken for a part of the
   rest by its label. The TL;DR layout and a titled document are such prompts.

A body loses its end: at the last line break that fits, else after the last sentence, else at the last space, else
between letters. Something of it always stays; where that cannot be, there is no cut, and the row is `over_long`.
"""

import bisect
import itertools
import re
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from minirlhf.text.chat import ChatPrompt
from minirlhf.text.prompts import FORMAT
from minirlhf.text.spelling import LAYOUT, LONGEST_HEADING, MARKER, find_closing

Turn = TypeVar("Turn")
# Where a text may be cut, best first: before a line break, after a sentence, before a space, between letters.
BREAKS = [re.compile(at) for at in (r"(?=\n)", r"(?:(?<=[.!?])|(?<=[.!?]['\")]))(?=\s)", r"(?=\s)", r"")]
OPENER = re.compile(r"^[^\S\n]*([^\W\d_][^\n:]{0,40}):", re.MULTILINE)  # of a turn
OPENED = re.compile(r"[^\n:]*:\s*")  # by which the last turn begins, and a prompt ends
SPEAKERS = {"human", "user", "assistant", "ai", "bot", "chatbot", "model"}
BLOCK = re.compile(r"\S(?:[^\n]|\n(?![^\S\n]*(?:\n|$)))*")
LABEL = re.compile(rf"#{{1,6}} [^\n]*(?:\n|$)|(?:{MARKER})\w*\n|[*_]*[^\W\d_][^\n:.!?]{{0,40}}:[*_]*(?=\s|$)")
LABEL_LINE = re.compile(rf"[^\n]{{0,200}}:[*_]*|#{{1,6}} [^\n]*|(?:{MARKER})+\w*|[-=*_~#]{{3,}}")
LAST_MARKER = re.compile(f"(?:{MARKER})$")
SHORT = 300  # characters of a block that opens or closes a prompt without a label


def truncate_prompt(
    prompt: str, max_tokens: int, count_tokens: Callable[[str], int], body: str | None = None
) -> str | None:
    """The prompt, shortened by the rule above so that it has at most `max_tokens` tokens; None if that cannot be.

    With one token a word (`count_tokens=lambda text: len(text.split())`), the prompt of r/a, TITLE: b and the
    post "One two. Three four.\\nFive" has 11 tokens, 6 of which are not the post's:

        max_tokens  post
        11          One two. Three four.\\nFive
        10          One two. Three four.
        9           One two.
        7           One
        6           None

    Args:
        body: a regular expression with a group `body`; see rule 1.

    A chat is shortened as a dialogue of its messages; it comes back without its text, to be written out anew.
    """

    def fits(text: str) -> bool:
        return count_tokens(text) <= max_tokens

    if fits(prompt):
        return prompt
    if isinstance(prompt, ChatPrompt):
        messages = truncate_messages(prompt.messages, lambda messages: fits(ChatPrompt("", messages)), body)
        return None if messages is None else ChatPrompt("", messages)
    prompt = prompt.strip()
    if body is not None:
        match = re.search(body, prompt, re.DOTALL)
        return None if match is None else _cut_span(prompt, match.span("body"), fits)
    if (dialogue := _read_dialogue(prompt)) is not None:
        return _shorten_dialogue(*dialogue, fits)
    return _cut_span(prompt, find_body(prompt), fits)


def truncate_messages(
    messages: list[dict[str, str]], fits: Callable[[list[dict[str, str]]], bool], body: str | None = None
) -> list[dict[str, str]] | None:
    """The messages of a chat, shortened as a dialogue is: system messages at its head stay. None if that cannot be."""
    if fits(messages):
        return messages
    system = 0
    while system < len(messages) - 1 and messages[system]["role"] in ("system", "developer"):
        system += 1
    head = messages[:system]

    def cut(message: dict[str, str], fits_one: Callable[[dict[str, str]], bool]) -> dict[str, str] | None:
        def as_text(text: str) -> bool:
            return fits_one(message | {"content": text})

        content = truncate_prompt(message["content"], 0, lambda text: 0 if as_text(text) else 1, body)
        return None if content is None else message | {"content": content}

    turns = _shorten_turns(messages[system:], lambda turn: len(turn["content"]), lambda turns: fits(head + turns), cut)
    return None if turns is None else head + turns


def _shorten_turns(
    turns: list[Turn],
    size: Callable[[Turn], int],
    fits: Callable[[list[Turn]], bool],
    cut: Callable[[Turn, Callable[[Turn], bool]], Turn | None],
) -> list[Turn] | None:
    """Fewer turns, or one of them cut, so that they fit."""
    sizes = [size(turn) for turn in turns]
    at = sizes.index(max(sizes))
    if 2 * sizes[at] <= sum(sizes):
        for first in range(2, len(turns), 2):  # a question and its answer at a time
            if fits(turns[first:]):
                return turns[first:]
        turns, at = turns[-1:], 0
    before, after = turns[:at], turns[at + 1 :]
    part = cut(turns[at], lambda part: fits([*before, part, *after]))
    return None if part is None else [*before, part, *after]


def _read_dialogue(prompt: str) -> tuple[str, list[str], str] | None:
    """What stands before the turns of a dialogue, the turns, and the one that is opened; None for anything else."""
    said = [(match.start(), match[1].strip()) for match in OPENER.finditer(prompt)]
    if not said or not OPENED.fullmatch(prompt, said[-1][0]) or find_closing(prompt) < len(prompt):
        return None
    names = Counter(name for _, name in said)
    speakers = {name for name, count in names.items() if count > 1 or name.lower() in SPEAKERS}
    starts = [start for start, name in said if name in speakers]
    if said[-1][1] not in speakers or len(starts) < 2:
        return None
    return prompt[: starts[0]], [prompt[a:b] for a, b in itertools.pairwise(starts)], prompt[starts[-1] :]


def _shorten_dialogue(head: str, turns: list[str], tail: str, fits: Callable[[str], bool]) -> str | None:
    rest = "".join(turns) + tail
    if len(head) > len(rest):  # a text that is talked about
        return _cut_span(head + rest, find_body(head), fits)
    kept = _shorten_turns(
        turns,
        len,
        lambda turns: fits(head + "".join(turns) + tail),
        lambda turn, fits: _cut_span(turn, find_body(turn), fits),
    )
    return None if kept is None else head + "".join(kept) + tail


def find_body(prompt: str) -> tuple[int, int]:
    """Where the body of a prompt is: from, and up to, which character."""
    if (match := FORMAT.fullmatch(prompt)) is not None:
        return match.span("body")
    blocks = [match.span() for match in BLOCK.finditer(prompt)]
    if not blocks:
        return 0, 0
    longest = max(blocks, key=lambda span: span[1] - span[0])
    end = _where_closing_begins(prompt, blocks, longest)
    return _where_opening_ends(prompt[:end], blocks, longest), end


def _where_closing_begins(prompt: str, blocks: list[tuple[int, int]], longest: tuple[int, int]) -> int:
    whole = end = len(prompt.rstrip())
    while (start := _last_label(prompt[:end])) > longest[0]:
        end = len(prompt[:start].rstrip())
    for start, _ in reversed([span for span in blocks if longest[0] < span[0] < end]):
        if not LABEL.match(prompt, start) and (end < whole or end - start > SHORT):
            break
        end = len(prompt[:start].rstrip())
    return end


def _last_label(prompt: str) -> int:
    """Where a heading, a last line that is a label, or a marker begins; 0 where there is none."""
    if (start := find_closing(prompt)) < len(prompt):
        return start
    if marker := LAST_MARKER.search(prompt, max(0, len(prompt) - LONGEST_HEADING)):
        return marker.start()
    start = prompt.rfind("\n") + 1
    return start if LABEL_LINE.fullmatch(prompt, start) else 0


def _where_opening_ends(prompt: str, blocks: list[tuple[int, int]], longest: tuple[int, int]) -> int:
    start = longest[0]
    blocks = [span for span in blocks if span[0] < len(prompt)]
    for index, (first, last) in enumerate(blocks):
        labelled = LABEL.match(prompt, first) and first < longest[0]
        opens = labelled or prompt[first:last].endswith(":") or (index == 0 and last - first <= SHORT)
        if index == len(blocks) - 1 or not opens:
            start = first
            break
    layout = LAYOUT.match(prompt)
    assert layout is not None  # its parts are optional
    start = max(start, layout.start("body"))
    label = LABEL.match(prompt, start)
    return label.end() if label and prompt[label.end() :].strip() else start


def _cut_span(prompt: str, span: tuple[int, int], fits: Callable[[str], bool]) -> str | None:
    """A prompt whose part at `span` is cut so that the whole fits; None if nothing of the part could stay."""
    body = prompt[slice(*span)]
    head, tail = prompt[: span[0]] + body[: len(body) - len(body.lstrip())], prompt[span[0] + len(body.rstrip()) :]
    tail = re.sub(r"^\s*\n\s*\n\s*", "\n\n", tail)
    part = truncate_text(body, lambda part: fits(head + part + tail))
    return head + part + tail if part else None


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
