"""The normal form of a row: its shape, its texts put right, and every change to them by its name.

docs/data.md lists reasons for a refusal and changes, as minirlhf/data/clean.py counts them.
"""

import functools
from typing import TYPE_CHECKING

from minirlhf.data.rows import RawRow
from minirlhf.data.shapes import to_shape
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import is_unicode
from minirlhf.text import spelling
from minirlhf.text.chat import ChatPrompt, Template, read_template, render, spoken
from minirlhf.text.prompts import build_completion, parse_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Normalizer:
    """Puts the rows of a source into their normal form.

    Args:
        columns: POSTS or COMPARISONS.
        tokenizer: the policy's, whose special tokens are taken off and whose template writes chats out; None: no model
            is meant yet, and a chat is written as it is spoken.
        name: of the source, for errors.
    """

    def __init__(
        self, columns: tuple[str, ...], tokenizer: "PreTrainedTokenizerBase | None" = None, name: str = "data"
    ):
        self.columns, self.tokenizer, self.name = columns, tokenizer, name
        named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) if tokenizer else ()
        self.ends = tuple(token for token in named if token is not None)
        self.special = tokenizer.all_special_tokens if tokenizer else []

    def __call__(self, raw: RawRow) -> RawRow:
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
        if chat and self.tokenizer is None:
            prompt = ChatPrompt(spoken(ChatPrompt("", messages)), messages)
        elif chat:
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
        bare = [spelling.strip_markers(answer, self.special) for answer in answers]
        certain = len(answers) > 1 and all(spelling.repeats(answer, prompt) for answer in bare)
        alone = [spelling.strip_prompt(answer, prompt, certain).strip() for answer in bare]
        plain = [spelling.strip_heading(answer, prompt) for answer in alone]
        steps = (("end_marker", answers, bare), ("repeated_prompt", bare, alone), ("heading", alone, plain))
        changes += [name for name, before, after in steps if before != after]
        return plain


def _tidy(text: str, changes: list[str]) -> str:
    text, names = spelling.tidy(text)
    changes += names
    return text
