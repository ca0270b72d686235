import asyncio
import json
import socket
import sys
import time

import pytest

from minirlhf.hub import chat
from minirlhf.hub.chat import Answer, Chat
from minirlhf.runtime.errors import UserError
from tests.hub.chat_server import ChatServer, completion

REQUEST = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "A or B?"}]}
KEY = "sk-secret-0123456789"
SOON = {"Retry-After": "0.01"}
BUSY = (503, SOON, b"")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv(chat.KEY_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def ask(*replies, times=1, timeout=5.0):
    """Ask a server that gives these replies in turn, then "A": the last answer, and the server."""
    left = list(replies)

    async def answers(url):
        async with Chat(url, timeout) as asked:
            return [await asked.ask(REQUEST) for _ in range(times)]

    with ChatServer(lambda request: left.pop(0) if left else "A") as server:
        found = asyncio.run(answers(server.url))
    return found[-1], server


def question(url, timeout=5.0):
    async def answer():
        async with Chat(url, timeout) as asked:
            return await asked.ask(REQUEST)

    return asyncio.run(answer())


def error(*replies):
    with pytest.raises(UserError) as caught:
        ask(*replies)
    assert "\n" not in str(caught.value) and "http://127.0.0.1" in str(caught.value)
    return str(caught.value)


def test_the_request_goes_to_chat_completions_as_it_is():
    answer, server = ask("B")
    assert answer == Answer("B", None, "stop")
    assert server.requests == [{**REQUEST, "path": "/v1/chat/completions"}]
    assert "Authorization" not in server.headers[0]


def test_the_key_of_the_environment_is_sent_and_stands_in_no_message(monkeypatch):
    monkeypatch.setenv(chat.KEY_VARIABLE, f"{KEY}\n")
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    message = error((401, {}, said))
    assert KEY not in message and "401 Unauthorized (Incorrect API key provided: ***); set OPENAI_API_KEY" in message
    assert KEY[:9] not in error((400, {}, json.dumps({"error": "x" * 185 + KEY}).encode()))
    answer, server = ask(f"you sent {KEY}")
    assert answer.content == "you sent ***" and server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv(chat.KEY_VARIABLE, f"{KEY}\r\nX: y")
    with pytest.raises(UserError, match="OPENAI_API_KEY: holds characters") as caught:
        Chat("http://127.0.0.1:9/v1", 1.0)
    assert KEY not in str(caught.value)


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"evaluate.judge.kind: .* pip install '.\[judge\]'"):
        Chat("http://127.0.0.1:9/v1", 1.0)


def test_what_may_pass_is_tried_again():
    answer, server = ask(BUSY, (429, SOON, b"{}"), (500, SOON, b"<html>"))
    assert answer.content == "A" and len(server.requests) == 4


def test_it_waits_as_long_as_the_server_asks():
    started = time.monotonic()
    assert ask(BUSY, (429, {"Retry-After": "1.5"}, b""))[0].content == "A"
    assert 1.5 <= time.monotonic() - started < 10
    assert "429 Too Many Requests; the server asks to wait 3600 s" in error(*[(429, {"Retry-After": "3600"}, b"")] * 2)


def test_it_gives_up_after_a_number_of_attempts():
    message = error(*[(503, SOON, b'{"error": {"message": "overloaded"}}')] * 20)
    assert "/v1/chat/completions: 503 Service Unavailable (overloaded)" in message
    assert message.endswith(f"; tried {1 + chat.RETRIES} times") and message.startswith("evaluate.judge: http://127.")


@pytest.mark.parametrize(
    "said",
    [
        {"code": "unsupported_value", "param": "temperature", "message": "Only the default (1) is supported."},
        {"code": "unsupported_parameter", "message": "Unsupported parameter: 'temperature'."},
        {"code": "400", "message": "UnsupportedParamsError: these models don't support temperature=0"},
        {"type": "invalid_request_error", "message": "`temperature` is deprecated for this model."},
    ],
)
def test_a_model_that_refuses_the_temperature_is_asked_without_it(capsys, said):
    answer, server = ask((400, {}, json.dumps({"error": said}).encode()), times=3)
    assert answer.content == "A" and len(server.requests) == 4
    assert ["temperature" in request for request in server.requests] == [True, False, False, False]
    assert capsys.readouterr().err == "evaluate.judge: m refuses temperature; asked without it\n"


def test_another_setting_that_is_refused_is_said():
    said = {"code": "unsupported_value", "param": "messages", "message": "no system messages"}
    assert "400 Bad Request (no system messages)" in error((400, {}, json.dumps({"error": said}).encode()))


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        ((401, {}, b""), "401 Unauthorized; set OPENAI_API_KEY"),
        ((404, {}, b'{"error": {"message": "no model m"}}'), "404 Not Found (no model m); check url (the base"),
        ((400, {}, b'{"error": "temperature?"}'), "400 Bad Request (temperature?)"),
        ((302, {"Location": "https://elsewhere/"}, b""), "302 Found, a redirect to https://elsewhere/"),
        ((200, {}, b"<html>welcome</html>"), "its answer is no chat completion: '<html>welcome</html>'"),
    ],
)
def test_what_cannot_pass_is_said_at_once(reply, part):
    with ChatServer(lambda request: reply) as server:
        with pytest.raises(UserError) as caught:
            question(server.url)
    assert part in str(caught.value) and len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": 3}}]}'])
def test_an_answer_that_is_none_is_asked_for_again(body):
    answer, server = ask("A", (200, {}, body), "B", times=2)
    assert answer.content == "B" and len(server.requests) == 3


def test_answers_that_are_none_have_an_end():
    with pytest.raises(UserError, match="its answer is no chat completion: '{}'"):
        ask("A", *[(200, {}, b"{}")] * 20, times=2)


def test_a_server_that_is_silent_times_out(monkeypatch):
    def silent(request):
        time.sleep(0.3)
        return "A"

    monkeypatch.setattr(chat, "RETRIES", 1)
    with ChatServer(silent) as server, pytest.raises(UserError, match=r"no answer within 0.1 s; tried 2 times"):
        question(server.url, 0.1)


def test_a_server_that_drips_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(chat, "LONGEST_WAIT", 0)
    with ChatServer(lambda request: "A") as server:
        server.piece, server.pause = 1, 0.05  # for five seconds
        with pytest.raises(UserError, match="no whole answer"):
            question(server.url, 0.2)


def test_an_address_where_nothing_listens_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(UserError, match=f"{url}/chat/completions: cannot be reached: .*(refused|failed)"):
        question(url)
    assert time.monotonic() - started < 5


def test_a_connection_that_was_there_is_tried_again():
    """A server that hangs up on the second question, once."""
    hung = []

    def reply(request):
        if len(server.requests) == 2 and not hung:
            hung.append(True)
            raise ConnectionResetError
        return "A"

    async def twice():
        async with Chat(server.url, 5.0) as asked:
            return [(await asked.ask(REQUEST)).content for _ in range(2)]

    with ChatServer(reply) as server:
        assert asyncio.run(twice()) == ["A", "A"]
    assert len(server.requests) == 3


def test_a_content_filter_is_a_refusal():
    said = b'{"error": {"code": "content_filter", "message": "filtered"}}'
    assert ask((400, {}, said))[0] == Answer(None, "filtered", "content_filter")
    assert ask((200, {}, completion(None, refusal="No.")))[0] == Answer(None, "No.", "stop")


def test_a_judge_is_asked_one_short_question_before_it_is_needed(capsys):
    with ChatServer(lambda request: "A") as server:
        chat.check(server.url, "m", 60.0)
    (asked,) = server.requests
    assert asked["model"] == "m" and len(json.dumps(asked)) < 200 and "temperature" not in asked
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        ((401, {}, b""), "401 Unauthorized; set OPENAI_API_KEY"),
        ((404, {}, b'{"error": {"message": "no model m"}}'), "404 Not Found (no model m); check url"),
        (
            (429, {}, b'{"error": {"code": "insufficient_quota", "message": "no credit"}}'),
            "429 Too Many Requests (no cre",
        ),
        ((200, {}, b"<html>welcome</html>"), "its answer is no chat completion"),
    ],
)
def test_what_will_not_pass_is_found_by_it(reply, part):
    with ChatServer(lambda request: reply) as server, pytest.raises(UserError) as caught:
        chat.check(server.url, "m", 60.0)
    assert part in str(caught.value) and len(server.requests) == 1


def test_a_server_that_is_busy_or_slow_is_left_for_later(monkeypatch, capsys):
    with ChatServer(lambda request: BUSY) as server:
        chat.check(server.url, "m", 60.0)
    monkeypatch.setattr(chat, "CHECK", 0.1)
    with ChatServer(lambda request: time.sleep(0.5) or "A") as slow:
        chat.check(slow.url, "m", 60.0)
    assert len(server.requests) == len(slow.requests) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("warning: evaluate.judge: http://127.") for line in said] == [True, True]
    assert "503 Service Unavailable" in said[0] and "no answer within 0.1 s; left for later" in said[1]
