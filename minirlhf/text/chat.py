"""Chats: prompts that are messages, written out by a tokenizer's chat template.

A prepared row of a chat holds `messages`, the truth, and `prompt`, what the base model's template makes of them with
its generation prompt, for people and for reward functions over text. In memory the two are one `ChatPrompt`, a text
that remembers its messages. Whoever encodes one writes the messages out anew by the template of the tokenizer at hand,
so that a reward model of another family reads its own format; it is the only text in which special tokens are special.
What reads as one inside of a message is spelt out first (`< |im_end|>`), so that nobody's words end a turn.

A response ends with the template's own end of turn where that is one token (`end_with_turn`), else with EOS.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]  # of {"role", "content"}
MARK = "qzxanswerxzq"  # stands for an answer where a template is tried


class ChatPrompt(str):
    """A chat written out, with the messages that it was made of."""

    messages: Messages

    def __new__(cls, text: str, messages: Iterable[dict[str, str]] = ()):
        prompt = super().__new__(cls, text)
        prompt.messages = list(messages)
        return prompt


class Template(NamedTuple):
    """How a tokenizer's template puts an answer after the prompt."""

    lead: str  # between the generation prompt and the answer: Llama 2's space
    end: str | None  # the special token that ends a turn; None where the template has none of its own


def render(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> ChatPrompt:
    """Messages as the tokenizer's template writes them, the generation prompt after them.

    Raises:
        UserError: the tokenizer has no template, or the template does not take these messages (roles in an order that
            it does not know, say).
    """
    control = _control_tokens(tokenizer)
    safe = [{**message, "content": _spell_out(message["content"], control)} for message in messages]
    return ChatPrompt(_apply(tokenizer, safe, add_generation_prompt=True), messages)


def read_template(tokenizer: "PreTrainedTokenizerBase") -> Template:
    """What the tokenizer's template does around an answer, found by trying. Raises as `render`."""
    question = [{"role": "user", "content": "a"}]
    opened = _apply(tokenizer, question, add_generation_prompt=True)
    whole = _apply(tokenizer, [*question, {"role": "assistant", "content": MARK}])
    before, _, after = whole.partition(MARK)
    ends = [token for token in _control_tokens(tokenizer) if after.lstrip().startswith(token)]
    return Template(before.removeprefix(opened) if before.startswith(opened) else "", max(ends, key=len, default=None))


def end_with_turn(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """Have the tokenizer's EOS be the token that ends a turn in its template, if there is one; returns it.

    From here on it is EOS wherever the tokenizer goes, as in what `sft` delivers (TRL asks for the same by its
    setting `eos_token`).
    """
    end = read_template(tokenizer).end
    if end is not None and end != tokenizer.eos_token:
        tokenizer.eos_token = end
    return tokenizer


def is_templated(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> bool:
    """Whether a prompt is a chat that this tokenizer has a template for."""
    return isinstance(prompt, ChatPrompt) and bool(tokenizer.chat_template)


def written_for(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> str:
    """A prompt as this tokenizer's model reads it: a chat by its own template, or as plain text if it has none."""
    if isinstance(prompt, ChatPrompt) and is_templated(tokenizer, prompt):
        return str(render(tokenizer, prompt.messages))
    return spoken(prompt)


def spoken(prompt: str) -> str:
    """What is said in a prompt, without a template's markup: the one message of a chat, or `role: content` of each."""
    if not isinstance(prompt, ChatPrompt):
        return prompt
    if len(prompt.messages) == 1:
        return prompt.messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, each with a role and a content that are texts."""
    return (
        bool(value)
        and isinstance(value, list)
        and all(
            isinstance(each, dict) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str)
            for each in value
        )
    )


def with_messages(row: dict) -> dict:
    """A prepared row, its prompt a `ChatPrompt` where it has messages."""
    return row | {"prompt": ChatPrompt(row["prompt"], row["messages"])} if "messages" in row else row


def read_prepared(path: str | Path, texts: Sequence[str] = ()) -> list[dict]:
    """The rows of a prepared file, as `read_jsonl` reads them, chats with their messages."""
    return [with_messages(row) for row in read_jsonl(path, texts)]


def _apply(tokenizer: "PreTrainedTokenizerBase", messages: Messages, add_generation_prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template: give texts, or a base model that has one")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # jinja's, or whatever the template's own code runs into
        raise UserError(f"the chat template does not take these messages: {first_line(error)}") from error


def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Tokens that a text of a chat must not turn into: special ones, and those that were added for a template."""
    template = tokenizer.chat_template or ""
    added = [token for token in tokenizer.get_added_vocab() if token.strip() and token in str(template)]
    return [token for token in dict.fromkeys([*tokenizer.all_special_tokens, *added]) if token.strip()]


def _spell_out(text: str, tokens: list[str]) -> str:
    for token in tokens:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text
