"""Which rows are kept: every refusal has a reason and is counted, none is silent.

Reasons:
    not_an_object, invalid_utf8   the row could not be read
    missing_field, mistyped_field a column is not there, or is not text
    not_a_post                    a news article among the posts (openai/summarize_from_feedback)
    empty_prompt, empty_completion
    identical                     chosen and rejected are the same
    duplicate                     the post, or the comparison, has been there before in its split
    held_out                      the prompt is in a split that this one must not share any with
    over_long                     a summary above the limit, or a prompt that cannot be cut to its limit
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minirlhf.data.rows import RawRow
from minirlhf.runtime.files import is_unicode
from minirlhf.text.prompts import (
    build_completion,
    encode_all,
    encode_prompts,
    first_tokens,
    parse_prompt,
    truncate_prompt,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POSTS = ("prompt", "completion")
COMPARISONS = ("prompt", "chosen", "rejected")
CHUNK = 512  # rows that are tokenized at once


@dataclass
class Tally:
    """What happened to the rows of one split."""

    kept: int = 0
    truncated: int = 0  # of those kept
    refused: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, list[int]] = field(default_factory=dict)  # column -> lengths of the kept rows, without EOS
    columns: list[str] = field(default_factory=list)  # of the first row, for the error where one is missing


class Cleaner:
    """Checks the rows of all splits of one source, and remembers the prompts of each.

    Args:
        columns: POSTS or COMPARISONS.
        max_prompt_tokens, max_response_tokens: limits; a response's includes EOS.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        columns: tuple[str, ...],
        max_prompt_tokens: int,
        max_response_tokens: int,
    ):
        self.tokenizer, self.columns = tokenizer, columns
        self.max_prompt_tokens, self.max_response_tokens = max_prompt_tokens, max_response_tokens

    def clean(
        self, rows: Iterable[RawRow], limit: int | None, excluded: set[bytes], prompts: set[bytes], tally: Tally
    ) -> Iterator[dict]:
        """Yield the rows that are kept, at most `limit`, and count the others in `tally`.

        Args:
            excluded: prompts (see `digest`) that this split must not have.
            prompts: the prompts of this split are added here.
        """
        seen: set[bytes] = set()
        checked = (self._check(row, excluded, seen, tally) for row in rows)
        for chunk in _chunks((row for row in checked if row is not None), CHUNK):
            for row in self._fit(chunk, tally):
                if tally.kept == limit:
                    return
                tally.kept += 1
                tally.truncated += row.pop("truncated")
                for column, length in row.pop("lengths").items():
                    tally.tokens.setdefault(column, []).append(length)
                prompts.add(row.pop("digest"))
                yield row

    def _check(self, raw: RawRow, excluded: set[bytes], seen: set[bytes], tally: Tally) -> dict | None:
        """The row in its normal form, or None after counting why not; all that needs no tokens."""
        if isinstance(raw, dict) and not tally.columns:
            tally.columns = list(raw)
        row = self._normalize(raw)
        if isinstance(row, dict):
            row["digest"] = digest(row["prompt"])
            if row["digest"] in excluded:
                row = "held_out"
            else:
                identity = ("prompt",) if self.columns == POSTS else COMPARISONS
                key = digest("\0".join(row[column] for column in identity))
                if key in seen:
                    row = "duplicate"
                seen.add(key)
        if isinstance(row, str):
            tally.refused[row] += 1
            return None
        return row

    def _normalize(self, raw: RawRow) -> RawRow:
        """Prompt without white space around it, summaries with one space before them; or the reason for refusal."""
        if isinstance(raw, str):
            return raw
        values = [raw.get(column) for column in self.columns]
        if None in values:
            return "missing_field"
        if not all(isinstance(value, str) for value in values):
            return "mistyped_field"
        if not all(map(is_unicode, values)):
            return "invalid_utf8"
        prompt, *summaries = values
        post = parse_prompt(prompt)
        if not (post.body if post else prompt.removesuffix("TL;DR:").strip()):
            return "empty_prompt"
        summaries = [build_completion(summary) for summary in summaries]
        if " " in summaries:
            return "empty_completion"
        if len(set(summaries)) < len(summaries):
            return "identical"
        row = dict(zip(self.columns, [prompt.strip(), *summaries], strict=True))
        record = raw.get("record")  # of the embedded world; what else has that name is not for us to keep
        if isinstance(record, dict) and all(map(is_unicode, (*record, *record.values()))):
            row["record"] = record
        return row | {"subreddit": post.subreddit if post else None}

    def _fit(self, rows: list[dict], tally: Tally) -> Iterator[dict]:
        """The rows within the limits, prompts cut where they must be, with "lengths" and "truncated" added."""
        ids = {column: encode_all(self.tokenizer, [row[column] for row in rows]) for column in self.columns}
        first = len(first_tokens(self.tokenizer))
        for index, row in enumerate(rows):
            lengths = {column: len(ids[column][index]) for column in self.columns}
            lengths["prompt"] += first
            row["truncated"] = lengths["prompt"] > self.max_prompt_tokens
            if row["truncated"]:
                row["prompt"] = truncate_prompt(row["prompt"], self.max_prompt_tokens, self._count)
                lengths["prompt"] = self._count(row["prompt"] or "")
            longest = max(lengths[column] for column in self.columns[1:])
            if row["prompt"] is None or longest + 1 > self.max_response_tokens:
                tally.refused["over_long"] += 1
            else:
                yield row | {"lengths": lengths}

    def _count(self, text: str) -> int:
        return len(encode_prompts(self.tokenizer, [text])[0])


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _chunks(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk
