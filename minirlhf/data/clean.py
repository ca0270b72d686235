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

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minirlhf.data.rows import RawRow
from minirlhf.data.shapes import POSTS, to_shape
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import is_unicode
from minirlhf.text import spelling
from minirlhf.text.chat import ChatPrompt, Template, read_template, render
from minirlhf.text.prompts import build_completion, encode_all, encode_prompts, parse_prompt
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
        named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
        self.ends = tuple(token for token in named if token is not None)

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
                # Whoever meets the post later, as among votes, knows it by its whole text too.
                yield row | ({"names": sorted(name.hex() for name in names)} if truncated else {})

    def _check(self, raw: RawRow, excluded: set[bytes], seen: set[bytes], tally: Tally) -> dict | None:
        """The row in its normal form, or None after counting why not; all that needs no tokens."""
        if isinstance(raw, dict) and not tally.columns:
            tally.columns = {name: type(value).__name__ for name, value in raw.items()}
        row = self._normalize(raw)
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

    def _normalize(self, raw: RawRow) -> RawRow:
        """The row with its texts put right and in the form that a policy is to see; or the reason for refusal."""
        row = to_shape(raw, self.columns)
        if isinstance(row, str):
            return row
        changes: list[str] = []
        prompt, *answers = (row[column] for column in self.columns)
        chat = isinstance(prompt, list)
        said = [each["content"] for each in prompt] if chat else [prompt]
        plain = spelling.unescape([*said, *answers])
        changes += ["escaped"] * (plain != [*said, *answers])
        said, answers = [_tidy(text, changes) for text in plain[: len(said)]], plain[len(said) :]
        messages = [{**each, "content": text} for each, text in zip(prompt, said, strict=True)] if chat else []
        prompt = said[-1] if chat else self._prompt(said[-1], changes)
        answers = self._answers(answers, prompt, changes)
        alone = functools.reduce(spelling.strip_answer, answers, prompt)
        changes += ["answered"] * (alone != prompt)
        if spelling.is_blank(spelling.body_of(alone)):
            return "empty_prompt"
        if any(map(spelling.is_blank, answers)):
            return "empty_completion"
        if not chat and any(spelling.ends_with_answer(alone, answer) for answer in answers):
            return "answer_in_prompt"
        prompt = alone
        if len(set(map(spelling.plain, answers))) < len(answers):
            return "identical"
        post = None if chat else parse_prompt(prompt)
        if chat:
            messages[-1]["content"] = prompt
            answers = [self.template.lead + answer for answer in answers]
            try:
                prompt = render(self.tokenizer, messages)
            except UserError:
                return "not_in_template"
        else:
            answers = [build_completion(answer) for answer in answers]
        clean = dict(zip(self.columns, [prompt, *answers], strict=True)) | ({"messages": messages} if chat else {})
        record = row.get("record")  # what else has that name is not for us to keep
        if isinstance(record, dict) and all(map(is_unicode, (*record, *record.values()))):
            clean["record"] = record
        return clean | {"subreddit": post.subreddit if post else None, "changes": set(changes)}

    @functools.cached_property
    def template(self) -> Template:
        """The tokenizer's chat template; UserError where it has none."""
        try:
            return read_template(self.tokenizer)
        except UserError as error:
            raise UserError(f"{self.name}: its rows are chats, and {error}") from error

    def _prompt(self, prompt: str, changes: list[str]) -> str:
        bare = spelling.strip_markers(prompt, self.ends, spelling.ENDS_A_PROMPT)
        changes += ["end_marker"] * (bare != prompt)
        return bare

    def _answers(self, answers: list[str], prompt: str, changes: list[str]) -> list[str]:
        """What answers a prompt, without all that is not part of it."""
        answers = [_tidy(answer, changes) for answer in answers]
        bare = [spelling.strip_markers(answer, self.tokenizer.all_special_tokens) for answer in answers]
        certain = len(answers) > 1 and all(spelling.repeats(answer, prompt) for answer in bare)
        alone = [spelling.strip_prompt(answer, prompt, certain).strip() for answer in bare]
        plain = [spelling.strip_heading(answer, prompt) for answer in alone]
        steps = (("end_marker", answers, bare), ("repeated_prompt", bare, alone), ("heading", alone, plain))
        changes += [name for name, before, after in steps if before != after]
        return plain

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


def _tidy(text: str, changes: list[str]) -> str:
    text, names = spelling.tidy(text)
    changes += names
    return text


def _chunks(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk
