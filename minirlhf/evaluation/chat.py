"""One question to an OpenAI-compatible chat endpoint: HTTP, retries, and every failure in one clear line.

The API key comes from the environment variable `OPENAI_API_KEY` alone; without it none is sent. It stands in no file
and in no message. Redirects are not followed: they would carry the key to another host.
"""

import email.utils
import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from minirlhf.runtime.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
ATTEMPTS = 7  # of one request; with FIRST_WAIT doubled each time a minute in all, the window of most rate limits
FIRST_WAIT = 1.0  # seconds
LONGEST_WAIT = 120.0  # seconds that a server may ask for
LARGEST_ANSWER = 1 << 20  # bytes
WORTH_RETRYING = {408, 409, 425, 429}  # and all from 500 on
HINTS = {401: f"set {KEY_VARIABLE} to a key that is accepted there", 403: f"is {KEY_VARIABLE} allowed to use it?",
         404: "check url (the base, often ending in /v1) and name (the model's, there)"}  # fmt: skip


class Answer(NamedTuple):
    """What a model answered: the parts of a chat completion's first choice that decide."""

    content: str | None
    refusal: str | None = None
    finish_reason: str | None = None


class _Failure(Exception):
    """An attempt failed in a way that may pass; `wait` is what the server asks for, in seconds."""

    def __init__(self, cause: str, wait: float | None = None):
        super().__init__(cause)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None  # the 3xx answer then arrives as an HTTPError


class Chat:
    """A chat endpoint. Safe to use from several threads.

    Args:
        url: base, to which `/chat/completions` is added.
        timeout: seconds after which an attempt is given up: without a byte, or as soon as one arrives later.
        wait: called with the seconds to wait before another attempt; it may raise to give up.
    """

    def __init__(self, url: str, timeout: float, wait: Callable[[float], object] = time.sleep):
        self.url, self.timeout, self.wait = f"{url.rstrip('/')}/chat/completions", timeout, wait
        self._key = api_key()
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._reached = False

    def ask(self, request: dict) -> Answer:
        """The answer to a request body.

        Raises:
            UserError: naming the url and the cause, when no attempt succeeded or none can.
        """
        for attempt in range(ATTEMPTS):
            try:
                answer = self._attempt(request)
                self._reached = True
                return answer
            except _Failure as failure:
                cause, wait = str(failure), failure.wait
            if wait is None:
                wait = FIRST_WAIT * 2**attempt
            elif wait > LONGEST_WAIT:
                raise self._error(f"{cause}; the server asks to wait {wait:.0f} s")
            if attempt + 1 < ATTEMPTS:
                self.wait(wait)
        raise self._error(f"{cause}; tried {ATTEMPTS} times")

    def _attempt(self, request: dict) -> Answer:
        # Some hosts refuse the user agent that urllib sends by itself.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minirlhf"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        posted = urllib.request.Request(self.url, json.dumps(request).encode(), headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with self._opener.open(posted, timeout=self.timeout) as response:
                return self._read_answer(_read(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, deadline)
        except TimeoutError:
            raise _Failure(f"no answer within {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                raise _Failure(f"no answer within {self.timeout:g} s") from None
            cause = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            if not self._reached:  # a wrong url is far likelier than a server that is just starting
                raise self._error(f"cannot be reached: {cause}") from None
            raise _Failure(f"connection lost: {cause}") from None

    def _refused(self, error: urllib.error.HTTPError, deadline: float) -> Answer:
        """What to make of a status other than 200."""
        try:
            said = _error_said(_read(error, deadline))
        except (OSError, http.client.HTTPException):
            said = {}
        status, message = error.code, self._shown(str(said.get("message") or ""))
        if status == 400 and said.get("code") == "content_filter":  # Azure refuses a prompt so
            return Answer(None, message or "content filter", "content_filter")
        cause = f"{status} {http.client.responses.get(status, '')}".rstrip()
        cause += f" ({message})" if message else ""
        if status in WORTH_RETRYING or status >= 500:
            raise _Failure(cause, seconds_to_wait(error.headers.get("Retry-After")))
        if 300 <= status < 400:
            cause += f", a redirect to {self._shown(error.headers.get('Location') or 'nowhere')}: give that url"
        raise self._error("; ".join(filter(None, (cause, HINTS.get(status)))))

    def _read_answer(self, body: bytes) -> Answer:
        try:
            choice = json.loads(body)["choices"][0]
            message = choice["message"]
            parts = message.get("content"), message.get("refusal"), choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            parts = (0,)
        if any(not isinstance(part, (str, type(None))) for part in parts):
            cause = f"its answer is no chat completion: {self._shown(body.decode('utf-8', 'replace'))!r}"
            raise _Failure(cause) if self._reached else self._error(f"{cause}; {HINTS[404]}")
        return Answer(*map(self._safe, parts))

    def _error(self, cause: str) -> UserError:
        return UserError(f"evaluate.judge: {self.url}: {cause}")

    def _safe(self, text: str | None) -> str | None:
        """Text of a server without the key, in case it says it back; a short one (EMPTY) is a placeholder."""
        return text.replace(self._key, "***") if text and self._key and len(self._key) >= 8 else text

    def _shown(self, text: str) -> str:
        """Such text for a message: without the key before it is cut, so that no part of the key is left."""
        text = " ".join(self._safe(text).split())
        return text if len(text) <= 200 else text[:197] + "..."


def api_key() -> str | None:
    """The key in the environment. UserError, without showing it, for one that no HTTP header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE}: holds characters that an API key cannot have")
    return key or None


def seconds_to_wait(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None where it holds neither.

    >>> seconds_to_wait("3"), seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT"), seconds_to_wait("soon")
    (3.0, 0.0, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = (then - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _read(response, deadline: float) -> bytes:
    """The whole body. TimeoutError past the deadline: a socket's own timeout starts anew with each byte."""
    body = b""
    while chunk := response.read1(1 << 16):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise http.client.HTTPException(f"an answer of more than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return body


def _error_said(body: bytes) -> dict:
    """`error` of an error's body, as OpenAI, Ollama or vLLM write it; {} where it is something else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    said = said.get("error", said) if isinstance(said, dict) else {}
    return said if isinstance(said, dict) else {"message": said}
