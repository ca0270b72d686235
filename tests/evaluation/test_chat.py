import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from minirlhf.evaluation import chat
from minirlhf.evaluation.chat import Answer, Chat, seconds_to_wait
from minirlhf.runtime.errors import UserError
from tests.evaluation.chat_server import ChatServer, completion

REQUEST = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "A or B?"}]}
KEY = "sk-secret-0123456789"
BUSY = (503, {}, b"")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv(chat.KEY_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def ask(*replies):
    """Ask a server that gives these replies in turn, then "A": the answer, the seconds waited, the server."""
    left, waited = list(replies), []
    with ChatServer(lambda request: left.pop(0) if left else "A") as server:
        answer = Chat(server.url, 5.0, waited.append).ask(REQUEST)
    return answer, waited, server


def error(*replies):
    with pytest.raises(UserError) as caught:
        ask(*replies)
    assert "\n" not in str(caught.value) and "http://127.0.0.1" in str(caught.value)
    return str(caught.value)


def test_the_request_goes_to_chat_completions_as_it_is():
    answer, waited, server = ask("B")
    assert answer == Answer("B", None, "stop") and waited == []
    assert server.requests == [{**REQUEST, "path": "/v1/chat/completions"}]
    assert "Authorization" not in server.headers[0]


def test_the_key_of_the_environment_is_sent_and_stands_in_no_message(monkeypatch):
    monkeypatch.setenv(chat.KEY_VARIABLE, f"{KEY}\n")
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    message = error((401, {}, said))
    assert KEY not in message and "401 Unauthorized (Incorrect API key provided: ***); set OPENAI_API_KEY" in message
    assert KEY[:9] not in error((400, {}, json.dumps({"error": "x" * 185 + KEY}).encode()))
    answer, _, server = ask(f"you sent {KEY}")
    assert answer.content == "you sent ***" and server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv(chat.KEY_VARIABLE, f"{KEY}\r\nX: y")
    with pytest.raises(UserError, match="OPENAI_API_KEY: holds characters") as caught:
        Chat("http://127.0.0.1:9/v1", 1.0)
    assert KEY not in str(caught.value)


def test_what_may_pass_is_tried_again_with_doubled_waits():
    answer, waited, server = ask(BUSY, (429, {}, b"{}"), (500, {}, b"<html>"))
    assert answer.content == "A" and waited == [1.0, 2.0, 4.0] and len(server.requests) == 4


def test_it_waits_as_long_as_the_server_asks():
    assert ask((429, {"Retry-After": "7"}, b""), BUSY)[1] == [7.0, 2.0]
    message = error((429, {"Retry-After": "3600"}, b""))
    assert "429 Too Many Requests; the server asks to wait 3600 s" in message


def test_retry_after_may_be_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < seconds_to_wait(soon) <= 30
    assert seconds_to_wait(None) is None and seconds_to_wait("nan") is None and seconds_to_wait("-1") == 0.0


def test_it_gives_up_after_a_number_of_attempts():
    message = error(*[(503, {}, b'{"error": {"message": "overloaded"}}')] * 20)
    assert message.endswith("/v1/chat/completions: 503 Service Unavailable (overloaded); tried 7 times")
    assert message.startswith("evaluate.judge: http://127.0.0.1")


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
            Chat(server.url, 5.0, pytest.fail).ask(REQUEST)
    assert part in str(caught.value) and len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": 3}}]}'])
def test_an_answer_that_is_none_is_asked_for_again(body):
    replies, waited = ["A", (200, {}, body), "B"], []
    with ChatServer(lambda request: replies.pop(0)) as server:
        asked = Chat(server.url, 5.0, waited.append)
        assert [asked.ask(REQUEST).content for _ in range(2)] == ["A", "B"]
    assert waited == [1.0]


def test_a_server_that_is_silent_or_drips_times_out(monkeypatch):
    def silent(request):
        time.sleep(0.3)
        return "A"

    monkeypatch.setattr(chat, "ATTEMPTS", 2)
    for reply, piece, pause in ((silent, 1 << 20, 0.0), (lambda request: "A", 1, 0.02)):
        waited = []
        with ChatServer(reply) as server:
            server.piece, server.pause = piece, pause
            with pytest.raises(UserError, match=r"no answer within 0.1 s; tried 2 times"):
                Chat(server.url, 0.1, waited.append).ask(REQUEST)
        assert waited == [1.0] and len(server.requests) == 2


def test_an_address_where_nothing_listens_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=f"{url}/chat/completions: cannot be reached: Connection refused"):
        Chat(url, 1.0, pytest.fail).ask(REQUEST)


def test_a_content_filter_is_a_refusal():
    said = b'{"error": {"code": "content_filter", "message": "filtered"}}'
    assert ask((400, {}, said))[0] == Answer(None, "filtered", "content_filter")
    assert ask((200, {}, completion(None, refusal="No.")))[0] == Answer(None, "No.", "stop")
