"""The shapes that posts and comparisons come in, brought to one: a prompt and what answers it.

docs/data.md shows each with an example. A prompt is a text or, of a chat, a list of messages {"role", "content"}; an
answer is always a text. Other columns are left out.
"""

import ast
import json
import re
from typing import Any

from minirlhf.data.rows import RawRow
from minirlhf.runtime.files import is_unicode
from minirlhf.text.prompts import Post, build_prompt
from minirlhf.text.spelling import skeleton

Messages = list[dict[str, str]]
POSTS = ("prompt", "completion")
COMPARISONS = ("prompt", "chosen", "rejected")
# Other data sets' names of a column; the first that a row has is taken.
PROMPT = ("prompt", "query")
COMPLETION = ("completion", "label", "summary", "response", "reference_response")
CHATS = ("messages", "conversations", "conversation")
# Of ShareGPT, which has `from` and `value`, and others.
ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}
LAST_TURN = re.compile(r".*\n(?:Assistant|AI|Bot|Model)\s*:", re.IGNORECASE | re.DOTALL)


def to_shape(row: RawRow, columns: tuple[str, ...]) -> RawRow:
    """A row under the names in `columns` (POSTS or COMPARISONS), or the reason why it is refused.

    >>> info = {"subreddit": "a", "title": "b", "post": "c"}
    >>> to_shape({"info": info, "summaries": [{"text": " x"}, {"text": " y"}], "choice": 1}, COMPARISONS)
    {'prompt': 'SUBREDDIT: r/a\\n\\nTITLE: b\\n\\nPOST: c\\n\\nTL;DR:', 'chosen': ' y', 'rejected': ' x'}
    >>> to_shape({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}, POSTS)
    {'prompt': [{'role': 'user', 'content': 'Hi'}], 'completion': 'Yes?'}
    """
    if isinstance(row, str):
        return row
    row = {name: _parsed(value) for name, value in row.items()}
    row = {str(name).lower(): value for name, value in row.items()} | row  # `Prompt` is prompt, where there is no other
    found = _of_openai(row) if "info" in row and "choice" in row else _named(row, columns)
    if isinstance(found, str):
        return found
    if columns == COMPARISONS and not _better(row):
        return "no_preference"
    values = [found.get(column) for column in columns]
    chat = any(map(_is_chat, values))
    if chat:
        values = _chat(*values)
    elif values[0] is None and columns == COMPARISONS and all(isinstance(value, str) for value in values[1:]):
        values = _shared_beginning(*values[1:])
    if isinstance(values, str):
        return values
    if chat and values[0] and (first := row.get("system")) and isinstance(first, str):
        values[0] = [{"role": "system", "content": first}] * (values[0][0]["role"] != "system") + values[0]
    if None in values:
        return "missing_field"
    texts = [*([message["content"] for message in values[0]] if chat else values[:1]), *values[1:]]
    if not all(isinstance(text, str) for text in texts):
        return "mistyped_field"
    if not all(map(is_unicode, texts)):
        return "invalid_utf8"
    kept = {"record": row["record"]} if "record" in row else {}  # of the embedded world
    return dict(zip(columns, values, strict=True)) | kept


def _named(row: dict, columns: tuple[str, ...]) -> dict[str, Any]:
    """The columns by the names that data sets are found with; a chat stands for the whole of a post."""
    found = {column: row.get(column) for column in columns}
    found["prompt"] = next((row[name] for name in PROMPT if row.get(name) is not None), None)
    if columns == POSTS:
        given = [row[name] for name in COMPLETION if row.get(name) is not None]
        # A `label` may be a number, with a `summary` beside it.
        found["completion"] = next(
            (each for each in given if not isinstance(each, int | float)), next(iter(given), None)
        )
        chat = next((row[name] for name in CHATS if isinstance(row.get(name), list)), None)
        if found["completion"] is None and chat is not None:
            return {"prompt": None, "completion": chat}
        parts = [row.get(name) for name in ("subreddit", "title", "post")]
        if found["prompt"] is None and all(isinstance(part, str) for part in parts):
            found["prompt"] = build_prompt(Post(parts[0].removeprefix("r/"), *parts[1:]))
    elif found["chosen"] is None and row.get("choice") in (0, 1, "0", "1"):  # Huang et al. 2024; CSV has texts
        pair = (row.get("response0"), row.get("response1"))
        found["chosen"], found["rejected"] = pair[int(row["choice"])], pair[1 - int(row["choice"])]
    return found


def _better(row: dict) -> bool:
    """Whether the chosen answer has the higher score, where a row has scores (as UltraFeedback's)."""
    chosen, rejected = (row.get(name) for name in ("score_chosen", "score_rejected"))
    numbers = isinstance(chosen, int | float) and isinstance(rejected, int | float)
    return not numbers or chosen > rejected


def _of_openai(row: dict) -> RawRow:
    """A row of openai/summarize_from_feedback."""
    try:
        parts = [row["info"][key] for key in ("subreddit", "title", "post")]
        summaries = [summary["text"] for summary in row["summaries"]]
        choice = row["choice"]
        if not all(isinstance(part, str) for part in parts):  # the set holds news articles too, which are no posts
            return "not_a_post"
        if not isinstance(choice, int) or choice not in (0, 1) or len(summaries) != 2:
            return "mistyped_field"
    except (KeyError, TypeError):
        return "missing_field"
    return {"prompt": build_prompt(Post(*parts)), "chosen": summaries[choice], "rejected": summaries[1 - choice]}


def _parsed(value: Any) -> Any:
    """What CSV holds of a chat: its messages as JSON, or as Python prints them. Any other value as it is."""
    if not isinstance(value, str) or not re.match(r"\s*\[\s*\{\s*[\"'](?:role|content|from|value)[\"']\s*:", value):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _shared_beginning(chosen: str, rejected: str) -> list | str:
    """Two dialogues in one text each (Anthropic/hh-rlhf), parted where the last turn that they share is opened."""
    same = next((at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    match = LAST_TURN.match(chosen[: min(len(chosen), len(rejected)) if same is None else same])
    return [match[0], chosen[match.end() :], rejected[match.end() :]] if match else "missing_field"


def _chat(prompt: Any, *answers: Any) -> list | str:
    """The messages of a prompt and the answers to it as texts, where any of them is given as messages.

    An answer may be a text, a message, or a whole conversation; what a conversation has before its last message is the
    prompt, where none is given, and must be the same as one that is.
    """
    given = prompt if isinstance(prompt, str) else _messages(prompt)
    asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
    texts, before = [], []
    for answer in answers:
        if isinstance(answer, str):
            texts.append(answer)
            continue
        messages = _messages(answer)
        if answer is None:
            return "missing_field"
        if not messages or messages[-1]["role"] != "assistant":
            return "not_a_chat"
        texts.append(messages[-1]["content"])
        before += [messages[:-1]] * (len(messages) > 1)
    for conversation in before:
        asked = conversation if asked is None or _ends_alike(conversation, asked) else asked
        if not _ends_alike(asked, conversation):
            return "not_a_chat"
    if (asked is None and prompt is not None) or (asked and asked[-1]["role"] in ("assistant", "system")):
        return "not_a_chat"
    return [asked, *texts]


def _is_chat(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict)


def _ends_alike(one: Messages, other: Messages) -> bool:
    """Whether one conversation is the other, or that with messages before it, as a system message."""
    words = [[(m["role"], skeleton(m["content"])) for m in messages] for messages in (one, other)]
    return words[0][-len(words[1]) :] == words[1]


def _messages(value: Any) -> Messages | None:
    """Messages as role and content, both texts; None for anything else."""
    found = []
    if not isinstance(value, list | dict):
        return None
    for message in [value] if isinstance(value, dict) else value:
        if not isinstance(message, dict):
            return None
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if isinstance(content, list):  # parts, of which a text model reads text alone
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "\n".join(parts) if len(parts) == len(content) and all(map(is_unicode, parts)) else None
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        found.append({"role": ROLES.get(role.lower(), role.lower()), "content": content})
    return found or None
