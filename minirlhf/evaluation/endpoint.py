"""A language model behind an OpenAI-compatible chat endpoint as a judge: the question, and how its answer is read.

Answers are kept in `.judgements/` of the repository that DVC was started in, outside every stage's outputs, so that no
question is asked twice. The name of an entry is a hash of all that decides the answer: url, model, temperature and the
exact messages. Delete the folder to ask anew, as when another model is served under the same name.
"""

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path

from minirlhf.evaluation.pairwise import NotJudged
from minirlhf.hub.chat import Answer, Chat, completions
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json, replace_file
from minirlhf.runtime.progress import Progress
from minirlhf.text.chat import spoken

AT_ONCE = 4  # requests in flight
# The question is that of Rafailov et al. 2023 (arXiv 2305.18290), the concise one, with ties.
QUESTION = """\
Which of the following summaries does a better job of summarizing the most important points in the given forum post, \
without including unimportant or irrelevant details? A good summary is both precise and concise.

<post>
{post}
</post>

<summary_A>
{first}
</summary_A>

<summary_B>
{second}
</summary_B>

Answer with one word: A if summary A is better, B if summary B is better, tie if they are equally good."""
# What a model thinks before it answers: all up to the last </think>, whose <think> some servers leave out; or all from
# a <think> that it never ended. Others write <thinking>, [THINK] (Magistral), ◁think▷ (Kimi); gpt-oss has channels.
THOUGHT = r"(?:think|thinking|thought|reasoning)"
THOUGHTS = re.compile(
    rf"\A.*(?:</{THOUGHT}>|\[/{THOUGHT}\]|◁/{THOUGHT}▷|<\|channel\|>final<\|message\|>)"
    rf"|(?:<{THOUGHT}>|\[{THOUGHT}\]|◁{THOUGHT}▷|<\|channel\|>analysis).*\Z",
    re.DOTALL | re.IGNORECASE,
)
WINS = {"A": 1.0, "B": 0.0, "tie": 0.5, "a tie": 0.5}
# Words that may stand around a verdict: "**B**", "Answer: tie.", "Summary A is better", "It's a tie"
AROUND = frozenset(
    "my the final answer verdict choice winner better best summary option boxed is it s i prefer choose".split()
)
REFUSAL = re.compile(r"(?i)\b(?:sorry|cannot|can't|can’t|unable to|not able to)\b")


class Endpoint:
    """Asks a model which of two summaries is better: `(prompts, first, second) -> 1, 0.5, 0 or NotJudged` a pair.

    Args:
        url: base of the endpoint.
        model: its name there.
        timeout: seconds for one request.
    """

    def __init__(self, url: str, model: str, timeout: float):
        self.model, self.folder = model, Path(os.environ.get("DVC_ROOT", "")) / ".judgements"
        self.url, self.timeout = url, timeout
        Chat(url, timeout)  # a missing client or a key that is none is said before anything is sampled

    def __call__(self, prompts: list[str], first: list[str], second: list[str]) -> list[float | NotJudged]:
        """Ask about every pair, a few at a time; answers come in the order of the pairs.

        Raises:
            UserError: the endpoint cannot be used (see `Chat`); the answers so far are kept.
        """
        requests = [self.request(*pair) for pair in zip(prompts, first, second, strict=True)]
        places = [self._place(request) for request in requests]
        wanted = dict(zip(places, requests, strict=True))  # one of each: equal questions are asked once
        answers = {place: kept for place, request in wanted.items() if (kept := _kept(place, request))}
        missing = [place for place in wanted if place not in answers]
        with Progress(len(wanted), "verdicts", "evaluate: judging") as progress:
            progress.start_at(len(answers))
            answers |= asyncio.run(self._ask({place: wanted[place] for place in missing}, progress))
        return [read_verdict(answers[place]) for place in places]

    def request(self, prompt: str, first: str, second: str) -> dict:
        """The body of the request about one pair."""
        post = spoken(prompt).strip().removesuffix("TL;DR:").strip()
        content = QUESTION.format(post=post, first=first, second=second)
        return {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}

    async def _ask(self, requests: dict[Path, dict], progress: Progress) -> dict[Path, Answer]:
        """Ask all, a few at a time, and keep each answer at its place. One that cannot succeed ends the others."""
        answers, turn = {}, asyncio.Semaphore(AT_ONCE)

        async def ask(place: Path, request: dict) -> None:
            async with turn:
                answers[place] = await chat.ask(request)
            with replace_file(place) as file:
                json.dump({"url": chat.url, "request": request, "answer": answers[place]._asdict()}, file, indent=1)
            progress.update()

        try:
            async with Chat(self.url, self.timeout) as chat, asyncio.TaskGroup() as tasks:
                for place, request in requests.items():
                    tasks.create_task(ask(place, request))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return answers

    def _place(self, request: dict) -> Path:
        asked = json.dumps([completions(self.url), request])
        name = hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.json"


def _kept(place: Path, request: dict) -> Answer | None:
    """The answer kept at a place, if it is whole and to this very request."""
    try:
        entry = read_json(place)
        answer = Answer(**entry["answer"])
    except (UserError, KeyError, TypeError):
        return None
    whole = entry.get("request") == request and all(isinstance(part, (str, type(None))) for part in answer)
    return answer if whole else None


def read_verdict(answer: Answer) -> float | NotJudged:
    """The first summary's share by an answer: 1 for A, 0 for B, 0.5 for a tie; or why it says none of them.

    The verdict may stand on a line of its own beside other text; lines that contradict each other are none.

    >>> read_verdict(Answer("**A**")), read_verdict(Answer("Both are short.\\n\\nAnswer: Tie."))
    (1.0, 0.5)
    >>> read_verdict(Answer("It depends."))
    NotJudged(reason='unparsable', said='It depends.')
    """
    said = THOUGHTS.sub("", answer.content or "").strip()
    verdicts = set(map(_verdict_of_line, said.splitlines())) - {None}
    if len(verdicts) == 1:
        return verdicts.pop()
    if answer.refusal or answer.finish_reason == "content_filter" or REFUSAL.search(said):
        return NotJudged("refused", answer.refusal or said)
    return NotJudged("unparsable" if said else "empty", said)


def _verdict_of_line(line: str) -> float | None:
    words = re.findall(r"[^\W\d_]+", line)
    if len(words) == 1 and len(words[0]) == 1:
        return WINS.get(words[0].upper())
    left = " ".join(word for word in words if word.lower() not in AROUND)  # an "a" in a sentence is no verdict
    return WINS.get(left if len(left) == 1 else left.lower())
