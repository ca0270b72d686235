import json
import threading
import time

import pytest

from minirlhf.evaluation import endpoint
from minirlhf.evaluation.endpoint import Endpoint, read_verdict
from minirlhf.evaluation.pairwise import NotJudged, PairwiseJudge, position_bias
from minirlhf.hub.chat import KEY_VARIABLE, Answer
from minirlhf.runtime.errors import UserError
from minirlhf.statistics.bootstrap import Bootstrap
from tests.hub.chat_server import ChatServer, completion, longer, shown

PROMPTS = [f"SUBREDDIT: r/a\n\nTITLE: t\n\nPOST: post {number}\n\nTL;DR:" for number in range(12)]
ONES, OTHERS = [f" {'x' * (n + 1)}" for n in range(12)], [f" {'y' * (12 - n)}" for n in range(12)]
FAIR = [0.0] * 6 + [1.0] * 6


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def compare(server, model="m"):
    return PairwiseJudge(Endpoint(server.url, model, 5.0)).compare(PROMPTS, ONES, OTHERS)


def test_both_orders_are_asked_and_averaged():
    with ChatServer(longer) as server:
        assert compare(server).wins.tolist() == FAIR
    pairs = {shown(request) for request in server.requests}
    assert len(server.requests) == 24 and ("x", "y" * 12) in pairs and ("y" * 12, "x") in pairs
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["path"]) == ("m", 0, "/v1/chat/completions")
    text = request["messages"][0]["content"]
    assert "POST: post" in text and "TL;DR:" not in text


def test_the_order_of_answers_does_not_depend_on_which_comes_first():
    turn = threading.Lock()

    def uneven(request):
        with turn:
            time.sleep(0.001 * (len(shown(request)[0]) % 3))
        time.sleep(0.01 * (len(shown(request)[0]) % 2))
        return longer(request)

    with ChatServer(uneven) as server:
        assert compare(server).wins.tolist() == FAIR
    assert 1 < server.most_at_once <= endpoint.AT_ONCE


def test_a_server_that_always_takes_the_first():
    with ChatServer(lambda request: "A") as server:
        found = compare(server)
    assert found.wins.tolist() == [0.5] * 12
    bias = position_bias([found], Bootstrap(0, 50))
    assert (bias.flipped.value, bias.flipped.low, bias.first_place.value) == (1.0, 1.0, 1.0)


def test_ties_and_answers_that_are_none_are_told_apart():
    said = {"post 0\n": "tie", "post 1\n": "I'm sorry, but I can't help with that.", "post 2\n": "Both are fine."}
    said["post 3\n"] = (200, {}, completion(None, refusal="No."))
    said["post 4\n"] = (200, {}, completion(""))

    def reply(request):
        text = request["messages"][0]["content"]
        return next((answer for post, answer in said.items() if f"POST: {post}" in text), "A")

    with ChatServer(reply) as server:
        found = compare(server)
    assert found.wins[0] == 0.5 and found.asked.all() and found.told.sum() == 8
    assert found.not_judged == {"empty": 1, "refused": 2, "unparsable": 1}


def test_a_rerun_asks_nothing_and_another_model_everything(monkeypatch, tmp_path):
    with ChatServer(longer) as server:
        first = compare(server)
        again = compare(server)
        assert len(server.requests) == 24
        assert again.wins.tolist() == first.wins.tolist()
        compare(server, model="another")
        assert len(server.requests) == 48
        monkeypatch.setattr(endpoint, "QUESTION", endpoint.QUESTION + " Please.")
        compare(server)
        assert len(server.requests) == 72
    assert len(list((tmp_path / ".judgements").rglob("*.json"))) == 72


def test_a_damaged_entry_is_asked_again(tmp_path):
    damages = [b"", b"{", b"[]", b'{"answer": {"content": "A"}}', b"\xff"]
    with ChatServer(longer) as server:
        compare(server)
        entries = sorted((tmp_path / ".judgements").rglob("*.json"))
        whole = [entry.read_bytes() for entry in entries]
        for entry, damage in zip(entries, damages, strict=False):
            entry.write_bytes(damage)
        entries[5].write_bytes(whole[6])  # whole, but to another request
        entries[6].write_bytes(whole[6].replace(b'"refusal": null', b'"refusal": 3'))
        assert compare(server).wins.tolist() == FAIR
    assert len(server.requests) == 24 + 7
    assert [entry.read_bytes() for entry in entries] == whole


def test_answers_so_far_are_kept_when_the_endpoint_fails(tmp_path):
    allowed = [10]

    def reply(request):
        allowed[0] -= 1
        return longer(request) if allowed[0] >= 0 else (401, {}, b"")

    with ChatServer(reply) as server:
        with pytest.raises(UserError, match="401 Unauthorized"):
            compare(server)
        assert len(server.requests) <= 10 + endpoint.AT_ONCE  # the others were not tried
        assert len(list((tmp_path / ".judgements").rglob("*.json"))) == 10
        allowed[0], before = 1000, len(server.requests)
        assert compare(server).wins.tolist() == FAIR
        assert len(server.requests) == before + 14


def test_one_failure_ends_the_waits_of_the_others(monkeypatch):
    def reply(request):
        return (401, {}, b"") if "post 5" in request["messages"][0]["content"] else (503, {"Retry-After": "60"}, b"")

    monkeypatch.setattr(endpoint, "AT_ONCE", 8)
    with ChatServer(reply) as server:
        started = time.monotonic()
        with pytest.raises(UserError, match="401"):
            compare(server)
        assert time.monotonic() - started < 10


def test_the_key_is_in_no_file_and_no_message(monkeypatch, tmp_path, capsys):
    key = "sk-secret-0123456789"
    monkeypatch.setenv(KEY_VARIABLE, key)
    with ChatServer(lambda request: f"A\n{key}") as server:
        compare(server)
        assert server.headers[0]["Authorization"] == f"Bearer {key}"
        server.reply = lambda request: (400, {}, json.dumps({"error": f"bad {key}"}).encode())
        with pytest.raises(UserError, match=r"bad \*\*\*") as caught:
            compare(server, model="another")
    files = list((tmp_path / ".judgements").rglob("*"))
    assert files and not any(key in file.read_text() for file in files if file.is_file())
    assert key not in str(caught.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ("A", 1.0),
        (" b.", 0.0),
        ("TIE", 0.5),
        ("**B**", 0.0),
        ("(A)", 1.0),
        ("Answer: B", 0.0),
        ("Summary A is better.", 1.0),
        ("The better summary is B.", 0.0),
        ("It's a tie.", 0.5),
        ("A\n\nIt names who left.", 1.0),
        ("B leaves out the question.\n\nMy verdict: A", 1.0),
        ("<think>\nA\n</think>\n\nB", 0.0),
        ("<thinking>A?</thinking>\nB", 0.0),
        ("[THINK]A[/THINK]Option B.", 0.0),
        ("◁think▷A◁/think▷B", 0.0),
        ("<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B", 0.0),
        ("\\boxed{B}", 0.0),
        ("A is longer, but\nB\n</think>\nA", 1.0),  # by a server that leaves out the opening tag
    ],
)
def test_a_verdict_is_read(said, share):
    assert read_verdict(Answer(said)) == share


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("A\nB", "unparsable"),
        ("C", "unparsable"),
        ("A or B", "unparsable"),
        ("The answer is a better summary", "unparsable"),
        ("A is not better", "unparsable"),
        ("<thinking>A", "empty"),
        ("<|channel|>analysis<|message|>A", "empty"),
        ("<think>\nA", "empty"),
        ("A\n</think>", "empty"),
        ("  ", "empty"),
        (None, "empty"),
        ("I cannot compare these.", "refused"),
    ],
)
def test_what_is_no_verdict_has_a_reason(said, reason):
    assert read_verdict(Answer(said)).reason == reason
    assert read_verdict(Answer(said, refusal="No.")) == NotJudged("refused", "No.")
    assert read_verdict(Answer(said, finish_reason="content_filter")).reason == "refused"
