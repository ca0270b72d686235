"""One question to an OpenAI-compatible chat endpoint through the `openai` client, and every failure in one clear line.

The API key comes from the environment variable `OPENAI_API_KEY` alone; without it none is sent. It stands in no file
and in no message. Redirects are not followed: they would carry the key to another host.
"""

import asyncio
import http
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from minirlhf.runtime.errors import UserError

if TYPE_CHECKING:
    from openai import APIStatusError

KEY_VARIABLE = "OPENAI_API_KEY"
CHECK = 10.0  # seconds for the one question that finds out whether an endpoint can be asked at all
RETRIES = 10  # of one request; the client waits 0.5, 1, 2, 4, 8, 8, ... seconds or as long as the server asks (to 120)
LONGEST_WAIT = 120  # seconds
MALFORMED = 3  # answers in a row that are no chat completion
SPENT = "insufficient_quota"  # a 429 that does not pass
UNSUPPORTED = ("unsupported_value", "unsupported_parameter")
UNSUPPORTED_SAID = re.compile(r"support|deprecated|not allowed", re.IGNORECASE)  # by who has no such code
HINTS = {401: f"set {KEY_VARIABLE} to a key that is accepted there", 403: f"is {KEY_VARIABLE} allowed to use it?",
         404: "check url (the base, often ending in /v1) and name (the model's, there)"}  # fmt: skip


class Answer(NamedTuple):
    """What a model answered: the parts of a chat completion's first choice that decide."""

    content: str | None
    refusal: str | None = None
    finish_reason: str | None = None


class Busy(UserError):
    """What may pass: no answer in time, too many requests, a fault of the server."""


class Chat:
    """A chat endpoint, open while the `async with` lasts; questions may be asked side by side.

    Args:
        url: base, to which `/chat/completions` is added.
        timeout: seconds without a byte after which an attempt is given up.
        retries: of a question where the fault may pass.

    Raises:
        UserError: the client is not installed, or the key is none.
    """

    def __init__(self, url: str, timeout: float, retries: int | None = None):
        self.url, self.timeout = completions(url), timeout
        self.retries = RETRIES if retries is None else retries
        self._openai, self._key = client_library(), api_key()
        self._base, self._reached, self._answered, self._temperature = url, False, False, True

    async def __aenter__(self) -> Self:
        self._client = self._openai.AsyncOpenAI(
            base_url=self._base,
            api_key=self._key or "none",
            timeout=self.timeout,
            http_client=self._openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.close()

    async def ask(self, request: dict[str, Any]) -> Answer:
        """The answer to a request body. A model that refuses its temperature is asked without one, which is said once.

        Raises:
            UserError: naming the url and the cause, when no attempt succeeded or none can.
        """
        try:
            # The client's timeout begins anew with each byte, so that an endless drip of them needs this end.
            async with asyncio.timeout((2 + self.retries) * self.timeout + self.retries * LONGEST_WAIT):
                return await self._completion(request)
        except TimeoutError:
            raise self._error("no whole answer, only bytes without end", Busy) from None
        except self._openai.APIStatusError as error:
            return await self._refused(request, error)
        except self._openai.APITimeoutError as error:
            raise self._error(f"no answer within {self.timeout:g} s{_tried(error.request)}", Busy) from None
        except self._openai.APIConnectionError as error:
            lost = "connection lost" if self._reached else "cannot be reached"
            raise self._error(f"{lost}: {_innermost(error)}{_tried(error.request)}") from None

    async def _completion(self, request: dict[str, Any]) -> Answer:
        """The first answer that is one, where one has come before; else the first must be."""
        for _ in range(MALFORMED):
            body = await self._post(request)
            answer = read_answer(body)
            if answer is not None:
                self._answered = True
                return Answer(*map(self._safe, answer))
            cause = f"its answer is no chat completion: {self._shown(body.decode('utf-8', 'replace'))!r}"
            if not self._answered:
                raise self._error(f"{cause}; {HINTS[404]}")
        raise self._error(cause)

    async def _post(self, request: dict[str, Any]) -> bytes:
        """The body of a response. Where nothing was reached yet a connection that fails is not tried again.

        A wrong url is far likelier then than a server that is just starting.
        """
        if not self._temperature:
            request = {key: value for key, value in request.items() if key != "temperature"}

        keyless = {} if self._key else {"Authorization": self._openai.Omit()}

        async def post(retries: int) -> bytes:
            create = self._client.with_options(max_retries=retries).chat.completions.with_raw_response.create
            return (await create(**request, extra_headers=keyless)).content

        if self._reached or not self.retries:
            return await post(self.retries)
        try:
            body = await post(retries=0)
        except (self._openai.APIStatusError, self._openai.APITimeoutError) as error:
            if not worth_retrying(error):
                raise
            body = None
        self._reached = True
        return await post(self.retries) if body is None else body

    async def _refused(self, request: dict[str, Any], error: "APIStatusError") -> Answer:
        """What to make of a status other than 200."""
        status, headers, said = error.status_code, error.response.headers, _error_said(error.response.content)
        message = self._shown(str(said.get("message") or ""))
        if status == 400 and said.get("code") == "content_filter":  # Azure refuses a prompt so
            return Answer(None, message or "content filter", "content_filter")
        unsupported = said.get("code") in UNSUPPORTED or UNSUPPORTED_SAID.search(message)
        refused = unsupported and "temperature" in f"{said.get('param')} {message}"
        if status == 400 and refused and "temperature" in request:
            if self._temperature:
                print(f"evaluate.judge: {request['model']} refuses temperature; asked without it", file=sys.stderr)
            self._temperature = False
            return await self.ask({key: value for key, value in request.items() if key != "temperature"})
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
        cause = f"{status} {phrase}".rstrip() + (f" ({message})" if message else "")
        if worth_retrying(error) and said.get("code") != SPENT:
            asked = (
                f"; the server asks to wait {self._shown(headers['retry-after'])} s" if "retry-after" in headers else ""
            )
            raise self._error(f"{cause}{asked}{_tried(error.request)}", Busy)
        if 300 <= status < 400:
            cause += f", a redirect to {self._shown(headers.get('location') or 'nowhere')}: give that url"
        raise self._error("; ".join(filter(None, (cause, HINTS.get(status)))))

    def _error(self, cause: str, kind: type[UserError] = UserError) -> UserError:
        return kind(f"evaluate.judge: {self.url}: {cause}")

    def _safe(self, text: str | None) -> str | None:
        """Text of a server without the key, in case it says it back; a short one (EMPTY) is a placeholder."""
        return text.replace(self._key, "***") if text and self._key and len(self._key) >= 8 else text

    def _shown(self, text: str) -> str:
        """Such text for a message: without the key before it is cut, so that no part of the key is left."""
        text = " ".join((self._safe(text) or "").split())
        return text if len(text) <= 200 else text[:197] + "..."


def check(url: str, model: str, timeout: float) -> None:
    """Ask a model one short question once, so that what is wrong with a judge is said before anything is trained.

    A server that is busy, or slower than `CHECK`, is left for later, with a warning.

    Raises:
        UserError: as `Chat`, or naming what will not pass: nobody there, the key, the model's name.
    """

    async def ask() -> None:
        async with Chat(url, min(timeout, CHECK), retries=0) as chat:
            await chat.ask({"model": model, "messages": [{"role": "user", "content": "Answer with one letter: A"}]})

    try:
        asyncio.run(ask())
    except Busy as error:
        print(f"warning: {error}; left for later", file=sys.stderr)


def completions(url: str) -> str:
    """Where a question goes, of a base url."""
    return f"{url.rstrip('/')}/chat/completions"


def client_library() -> Any:
    """The `openai` package, an optional one. UserError where it is not installed."""
    try:
        import openai
    except ImportError:
        raise UserError("evaluate.judge.kind: endpoint needs the openai client: pip install '.[judge]'") from None
    return openai


def api_key() -> str | None:
    """The key in the environment. UserError, without showing it, for one that no HTTP header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE}: holds characters that an API key cannot have")
    return key or None


def worth_retrying(error: Any) -> bool:
    """Whether the client tries again after an error: a timeout, or a status that may pass."""
    status = getattr(error, "status_code", None)
    return status is None or status in (408, 409, 429) or status >= 500


def read_answer(body: bytes) -> tuple[str | None, ...] | None:
    """Content, refusal and finish reason in the body of a chat completion; None where it is none.

    Not by the client's types: it checks nothing that a server says.
    """
    try:
        choice = json.loads(body)["choices"][0]
        parts = choice["message"].get("content"), choice["message"].get("refusal"), choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    return parts if all(isinstance(part, (str, type(None))) for part in parts) else None


def _tried(request: Any) -> str:
    """How often the client tried, where it did more than once."""
    tries = 1 + int(request.headers.get("x-stainless-retry-count", 0))
    return f"; tried {tries} times" if tries > 1 else ""


def _innermost(error: BaseException) -> str:
    """What an error of the connection comes from, as the system words it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _error_said(body: bytes) -> dict[str, Any]:
    """`error` of an error's body, as OpenAI, Ollama or vLLM write it; {} where it is something else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    said = said.get("error", said) if isinstance(said, dict) else {}
    return said if isinstance(said, dict) else {"message": said}
