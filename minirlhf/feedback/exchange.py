"""Votes in the formats of others: what can be imported, and how votes are exported.

Imported, a file's rows being told by their keys:

- a packet's file of votes, as this project writes them;
- comparisons as `data.comparisons` takes them: TRL's prompt, chosen, rejected; of openai/summarize_from_feedback
  (Stiennon et al. 2020) with worker and confidence;
- Label Studio's JSON: tasks with annotations of the Pairwise tag, or of Choices;
- Argilla's records (`to_list`, flattened or not): a label or a ranking of two fields.

In the last two the summaries are the two fields whose names differ in their end alone (answer1 and answer2, text_a and
text_b), the post is the other text. Posts are split by a hash: 80% train, 10% validation, 10% test.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minirlhf.data.shapes import COMPARISONS, to_shape
from minirlhf.feedback.votes import Pair, Summary, Undo, Vote, Votes, digest
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import is_unicode, read_json, read_jsonl
from minirlhf.text.chat import ChatPrompt, spoken
from minirlhf.text.prompts import Post, build_completion, parse_prompt

FIRST, SECOND = ("1", "a", "left", "first"), ("2", "b", "right", "second")
TIES = ("tie", "equal", "same", "both", "draw")
PROMPTS = ("prompt", "post", "question", "instruction", "text", "context")
PAIRED = re.compile(r"(.*?)[-_ ]?(1|2|a|b|left|right|first|second)", re.IGNORECASE)


def read_given(path: Path, refused: Counter[str]) -> Iterator[tuple[Pair | None, Vote | Undo]]:
    """The votes in a file, each with its pair (None: a packet's, whose pairs are known); others are counted by reason.

    The same row gives the same id, so that a file that is imported twice counts once.

    Raises:
        UserError: the file cannot be read, or is of no known format.
    """
    rows = read_json(path) if path.suffix == ".json" else read_jsonl(path)
    rows = rows if isinstance(rows, list) else [rows]
    for index, row in enumerate(rows):
        reader = next((of for is_it, of in FORMATS if isinstance(row, dict) and is_it(row)), None)
        if reader is None and index == 0:
            raise UserError(f"{path}: no votes of a known format; see docs/people.md")
        if reader is None:
            refused["unknown_format"] += 1
            continue
        try:
            yield from reader(row)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            refused[error.args[0] if isinstance(error, _Refused) else "mistyped_field"] += 1


class _Refused(ValueError):
    """A row that cannot be taken, for this reason."""


def _packet(row: dict) -> Iterator[tuple[None, Vote | Undo]]:
    try:
        yield None, (Undo if "undo" in row else Vote).model_validate(row)
    except ValidationError:
        raise _Refused("mistyped_field") from None


def _comparison(row: dict) -> Iterator[tuple[Pair, Vote]]:
    """A comparison in any shape that `data.comparisons` takes; the first summary is the chosen one."""
    shaped = to_shape(row, COMPARISONS)
    if isinstance(shaped, str):
        raise _Refused(shaped)
    prompt = shaped["prompt"] if isinstance(shaped["prompt"], str) else spoken(ChatPrompt("", shaped["prompt"]))
    confidence = (row.get("extra") or {}).get("confidence")
    yield _vote(prompt, shaped["chosen"], shaped["rejected"], "left", str(row.get("worker") or "imported"), confidence)


def _label_studio(row: dict) -> Iterator[tuple[Pair, Vote]]:
    prompt, names = _fields(row["data"])
    for annotation in row["annotations"]:
        if annotation.get("was_cancelled") or not annotation["result"]:
            continue
        value = annotation["result"][0]["value"]
        said = value["selected"] if "selected" in value else value["choices"][0]
        by = annotation.get("completed_by") or "imported"
        voter = str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by)
        first, second = (row["data"][name] for name in names)
        yield _vote(prompt, first, second, _choice(said, names), voter, None)


def _argilla(row: dict) -> Iterator[tuple[Pair, Vote]]:
    if isinstance(row.get("responses"), dict):
        fields = row["fields"]
        answers = [(a["value"], str(a.get("user_id")), a.get("status")) for a in next(iter(row["responses"].values()))]
    else:
        question = next(key for key in row if key.endswith(".responses")).removesuffix(".responses")
        fields = {key: value for key, value in row.items() if "." not in key and key not in ("id", "status")}
        said = row[f"{question}.responses"] or []
        users, states = (row.get(f"{question}.responses.{key}") or [None] * len(said) for key in ("users", "status"))
        answers = list(zip(said, map(str, users), states, strict=True))
    prompt, names = _fields(fields)
    for said, voter, status in answers:
        if status in ("submitted", None):
            yield _vote(prompt, *(fields[name] for name in names), _choice(said, names), voter, None)


FORMATS: tuple[tuple[Callable[[dict], bool], Callable[[dict], Iterator]], ...] = (
    (lambda row: "shown" in row or "undo" in row, _packet),
    (lambda row: "annotations" in row and "data" in row, _label_studio),
    (lambda row: "choice" in row or "chosen" in row, _comparison),
    (lambda row: "responses" in row or any(key.endswith(".responses") for key in row), _argilla),
)


def _vote(prompt: str, first: str, second: str, choice: str, voter: str, confidence: Any) -> tuple[Pair, Vote]:
    if not all(map(is_unicode, (prompt, first, second))):
        raise _Refused("mistyped_field")
    if not (prompt.strip() and first.strip() and second.strip()):
        raise _Refused("empty")
    if first.strip() == second.strip():
        raise _Refused("identical")
    summaries = tuple(Summary(text=build_completion(text)) for text in (first, second))
    pair = Pair(prompt=prompt.strip(), summaries=summaries, split=split_of(prompt.strip()))
    name = "".join(c for c in voter if c.isprintable())[:40] or "imported"
    confidence = confidence if type(confidence) is int else None
    vote = Vote(id=digest("import", pair.id, name, choice), voter=name, pair=pair.id, left=0, choice=choice,
                shown=pair.shown(0), rule="given", confidence=confidence)  # fmt: skip
    return pair, vote


def split_of(prompt: str) -> str:
    """The split of an imported post, by a hash of it."""
    place = int(digest(prompt)[:8], 16) % 10
    return {8: "validation", 9: "test"}.get(place, "train")


def _fields(fields: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    """The post among some fields, and the names of the two summaries."""
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    stems: dict[str, dict[int, str]] = {}
    for name in texts:
        if match := PAIRED.fullmatch(name):
            stems.setdefault(match[1].lower(), {})[match[2].lower() in SECOND] = name
    pairs = [ends for ends in stems.values() if len(ends) == 2]
    if len(pairs) != 1:
        raise _Refused("no_two_summaries")
    names = pairs[0][False], pairs[0][True]
    others = [name for name in texts if name not in names]
    prompt = next((name for name in PROMPTS if name in others), others[0] if len(others) == 1 else None)
    if prompt is None:
        raise _Refused("no_post")
    return texts[prompt], names


def _choice(said: Any, names: tuple[str, str]) -> str:
    """left or right (for the first and the second summary) or tie, of a label, or of a ranking of both."""
    if isinstance(said, list):
        if isinstance(said[0], dict):
            ranks = {item["value"]: item.get("rank") or place for place, item in enumerate(said, start=1)}
            if len(set(ranks.values())) == 1:
                return "tie"
            said = sorted(ranks, key=ranks.__getitem__)
        said = said[0]
    word = str(said).strip().lower()
    if any(tie in word for tie in TIES):
        return "tie"
    match = PAIRED.fullmatch(word)
    end = match[2] if match else word.split()[0] if word else ""  # "A is better"
    for choice, name, ends in (("left", names[0], FIRST), ("right", names[1], SECOND)):
        if word == name.lower() or end in ends:
            return choice
    raise _Refused("unknown_choice")


def to_trl(votes: Votes) -> Iterator[dict]:
    """The votes that decide in TRL's columns."""
    for split in ("train", "validation", "test"):
        for row in votes.comparisons(split):
            yield {name: row[name] for name in ("prompt", "chosen", "rejected")}


def to_openai(votes: Votes) -> Iterator[dict]:
    """The votes that decide in the columns of openai/summarize_from_feedback."""
    for vote in votes.counted():
        if vote.choice == "tie":
            continue
        pair = votes.pairs[vote.pair]
        post = parse_prompt(pair.prompt) or Post("", "", pair.prompt)
        yield {
            "info": {"id": pair.id, "post": post.body, "title": post.title, "subreddit": post.subreddit},
            "split": pair.split,
            "summaries": [{"text": s.text, "policy": s.system or "unknown", "note": None} for s in pair.summaries],
            "choice": 0 if vote.first_won else 1,
            "worker": vote.voter,
            "batch": vote.rule,
            "extra": {"confidence": vote.confidence},
        }


EXPORTS: dict[str, Callable[[Votes], Iterable[dict]]] = {"trl": to_trl, "openai": to_openai}
