"""Which rows are kept, and what is put right in them: every refusal and every change has a name and is counted.

Reasons for a refusal:
    not_an_object, invalid_utf8   the row could not be read
    ragged                        a row of CSV with more fields than its header
    missing_field, mistyped_field a column is not there, or is neither text nor messages
    not_a_post                    a news article among the posts (openai/summarize_from_feedback)
    not_a_chat                    messages without a role or a text, or not a question and one answer of the assistant
    not_in_template               messages that the chat template does not take
    empty_prompt, empty_completion
    answer_in_prompt              the prompt ends with the summary, under no heading that would say where it begins
    no_preference                 score_chosen is not above score_rejected
    identical                     chosen and rejected are the same
    duplicate                     the post, or the comparison, has been there before in its split, in any spelling
    held_out                      the prompt is in a split that this one must not share any with, in any spelling
    over_long                     a summary above the limit, or a prompt that cannot be cut to its limit

Changes:
    escaped                       `\\n` and the like became line breaks, in a row that has no other ones
    line_breaks                   other than line feeds became line feeds
    invisible                     byte order marks and characters without width at the ends went
    end_marker                    `<|endoftext|>`, `</s>`, the tokenizer's own and their like at the ends went
    repeated_prompt               the prompt at the head of a summary went
    heading                       `TL;DR:` at the head of a summary, or what closes the prompt, went
    answered                      the summary went from the prompt, which had it under `TL;DR:` or last under `Answer:`
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minirlhf.data.normal import Normalizer
from minirlhf.data.rows import RawRow
from minirlhf.data.shapes import POSTS
from minirlhf.text import spelling
from minirlhf.text.chat import ChatPrompt, render
from minirlhf.text.prompts import encode_all, encode_prompts
from minirlhf.text.truncate import truncate_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 512  # rows that are tokenized at once


@dataclass
class Tally:
    """What happened to the rows of one split."""

    kept: int = 0
    chats: int = 0  # of those kept
    truncated: int = 0  # of those kept
    refused: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)  # of those kept, by what was put right
    tokens: dict[str, list[int]] = field(default_factory=dict)  # column -> lengths of the kept rows, without EOS
    summaries: dict[bytes, set[bytes]] = field(default_factory=dict)  # of each post that has comparisons, by digest
    columns: dict[str, str] = field(default_factory=dict)  # of the first row, and their types, for the error


class Cleaner:
    """Checks the rows of all splits of one source, and remembers the prompts of each.

    Args:
        columns: POSTS or COMPARISONS.
        max_prompt_tokens, max_response_tokens: limits; a response's includes EOS.
        body: what of a prompt may be cut, see `truncate_prompt`.
        name: of the source, for errors.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        columns: tuple[str, ...],
        max_prompt_tokens: int,
        max_response_tokens: int,
        body: str | None = None,
        name: str = "data",
    ):
        self.tokenizer, self.columns, self.body, self.name = tokenizer, columns, body, name
        self.max_prompt_tokens, self.max_response_tokens = max_prompt_tokens, max_response_tokens
        self.normalize = Normalizer(columns, tokenizer, name)

    def clean(
        self, rows: Iterable[RawRow], limit: int | None, excluded: set[bytes], prompts: set[bytes], tally: Tally
    ) -> Iterator[dict]:
        """Yield the rows that are kept, at most `limit`, and count the others in `tally`.

        Args:
            excluded: posts (digests of the names by `same_post`) that this split must not have.
            prompts: the posts of this split are added here.
        """
        seen: set[bytes] = set()
        checked = (self._check(row, excluded, seen, tally) for row in rows)
        for chunk in _chunks((row for row in checked if row is not None), CHUNK):
            for row in self._fit(chunk, excluded, seen, tally):
                if tally.kept == limit:
                    return
                tally.kept += 1
                tally.chats += "messages" in row
                tally.truncated += (truncated := row.pop("truncated"))
                tally.changed.update(row.pop("changes"))
                for column, length in row.pop("lengths").items():
                    tally.tokens.setdefault(column, []).append(length)
                names = row.pop("names")
                prompts.update(names)
                if self.columns != POSTS:
                    texts = {spelling.digest(row[column]) for column in self.columns[1:]}
                    tally.summaries.setdefault(min(names), set()).update(texts)
                # Whoever meets the post later, as among votes, knows it by its whole text too.
                yield row | ({"names": sorted(name.hex() for name in names)} if truncated else {})

    def _check(self, raw: RawRow, excluded: set[bytes], seen: set[bytes], tally: Tally) -> dict | None:
        """The row in its normal form, or None after counting why not; all that needs no tokens."""
        if isinstance(raw, dict) and not tally.columns:
            tally.columns = {name: type(value).__name__ for name, value in raw.items()}
        row = self.normalize(raw)
        if isinstance(row, dict):
            row["names"] = set()  # of its post: of the whole, and of what is left of it
            row = self._meet(row, excluded, seen) or row
        if isinstance(row, str):
            tally.refused[row] += 1
            return None
        return row

    def _meet(self, row: dict, excluded: set[bytes], seen: set[bytes]) -> str | None:
        """Why a row is refused, whose post has been met; else its names are added to its own and to those `seen`."""
        names, known_as = (set(map(spelling.digest, names)) for names in spelling.same_post(spelling.said(row)))
        if names <= row["names"]:  # nothing that can be seen was cut
            return None
        texts = b"".join(spelling.digest(spelling.plain(row[column])) for column in self.columns[1:])
        texts = b"" if self.columns == POSTS else texts
        row["names"] |= names
        if known_as & excluded:
            return "held_out"
        repeated = {name + texts for name in known_as} & seen
        seen.update(name + texts for name in names)
        return "duplicate" if repeated else None

    def _fit(self, rows: list[dict], excluded: set[bytes], seen: set[bytes], tally: Tally) -> Iterator[dict]:
        """The rows within the limits, prompts cut where they must be, with "lengths" and "truncated" added.

        What is left of a post may be another, or what is left of another: a cut one is met a second time.
        """
        prompt, *others = self.columns
        ids = {column: encode_all(self.tokenizer, [row[column] for row in rows]) for column in others}
        ids[prompt] = encode_prompts(self.tokenizer, [row[prompt] for row in rows])
        for index, row in enumerate(rows):
            lengths = {column: len(ids[column][index]) for column in self.columns}
            row["truncated"] = lengths["prompt"] > self.max_prompt_tokens
            if row["truncated"]:
                self._cut(row)
                lengths["prompt"] = self._count(row["prompt"] or "")
            longest = max(lengths[column] for column in self.columns[1:])
            reason = None
            if row["prompt"] is None or longest + 1 > self.max_response_tokens:
                reason = "over_long"
            elif row["truncated"]:
                reason = self._meet(row, excluded, seen)
            if reason is None:
                yield row | {"lengths": lengths}
            else:
                tally.refused[reason] += 1

    def _cut(self, row: dict) -> None:
        """Cut the row's prompt to its limit; it is None where that cannot be."""
        row["prompt"] = truncate_prompt(row["prompt"], self.max_prompt_tokens, self._count, self.body)
        if isinstance(row["prompt"], ChatPrompt):
            row["messages"] = row["prompt"].messages
            row["prompt"] = render(self.tokenizer, row["messages"])

    def _count(self, text: str) -> int:
        return len(encode_prompts(self.tokenizer, [text])[0])


def _chunks(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk
