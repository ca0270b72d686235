"""The server, asked as nobody should ask it, and killed."""

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time

import pytest

from minirlhf.feedback.pairs import Queue
from minirlhf.feedback.votes import read_votes
from minirlhf.labelling.server import FILES, LabelServer, file
from minirlhf.labelling.session import Session
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_jsonl
from minirlhf.world import posts
from tests.conftest import SOAK
from tests.house import ROOT
from tests.labelling.conftest import some_pairs
from tests.labelling.test_session import said

JSON = {"Content-Type": "application/json"}


def ask(server: LabelServer, path: str, body=None, method: str = "POST", **headers):
    """The status, and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, data, {**JSON, **headers})
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer, json.loads(raw) if answer.headers.get_content_type() == "application/json" else raw.decode()


def test_a_vote_by_hand(served, tmp_path):
    _, state = ask(served, "/next", {"voter": "anna"})
    answer, after = ask(served, "/vote", {"voter": "anna", **said(state)})
    assert answer.status == 200 and after["done"] == 1
    assert len(read_votes(tmp_path / "votes").cast) == 1
    answer, undone = ask(served, "/undo", {"voter": "anna", "id": secrets.token_hex(16)})
    assert answer.status == 200 and undone["ask"] == state["ask"]


def test_the_page_is_small_and_allows_nothing_from_elsewhere(served):
    total = 0
    for path in FILES:
        answer, text = ask(served, path, method="GET")
        total += len(text.encode())
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy.replace("'self'", "")
        assert "//" not in text.replace("http://www.w3.org", "").replace("/* ", "").replace("// ", "")
    assert total < 60_000


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/next", {"voter": "anna"}, {"Host": "evil.example"}, 403),
        ("/next", {"voter": "anna"}, {"Origin": "http://evil.example"}, 403),
        ("/next", {"voter": "anna"}, {"Content-Type": "text/plain"}, 415),
        ("/next", {"voter": ""}, {}, 400),
        ("/next", {"voter": "x" * 41}, {}, 400),
        ("/next", {"voter": "a\x1b[31m"}, {}, 400),
        ("/next", {"voter": 3}, {}, 400),
        ("/next", [], {}, 400),
        ("/next", b"{", {}, 400),
        ("/next", b"[" * 60_000, {}, 400),
        ("/next", b"\xff", {}, 400),
        ("/next", b" " * 70_000, {}, 413),
        ("/votes.jsonl", {"voter": "anna"}, {}, 404),
        ("/vote", {"voter": "anna"}, {}, 409),
        ("/vote", {"voter": "anna", "id": "0" * 32, "pair": "0" * 32, "left": 0, "choice": "left", "shown": "0" * 32,
                   "rule": "random", "repeat": False}, {}, 409),
        ("/undo", {"voter": "anna", "id": 5}, {}, 200),
    ],
)  # fmt: skip
def test_what_should_not_be_asked_changes_nothing(served, tmp_path, path, body, headers, status):
    answer, _ = ask(served, path, body, **headers)
    assert answer.status == status
    assert not read_votes(tmp_path / "votes").cast
    assert ask(served, "/next", {"voter": "anna"})[0].status == 200  # and the server still works


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/page.py", "/session.py", "/%2e%2e/x", "//evil.example/"])
def test_no_other_file_is_given(served, path):
    assert ask(served, path, method="GET")[0].status == 404


def test_elsewhere_it_listens_with_a_token_only(tmp_path):
    server = LabelServer(Session(tmp_path, Queue(some_pairs(), 1.0)), "0.0.0.0")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert server.address.endswith(f"#{server.token}") and len(server.token) > 20
    assert ask(server, "/next", {"voter": "anna"})[0].status == 403
    assert ask(server, "/next", {"voter": "anna"}, Authorization="Bearer ä".encode().decode("latin-1"))[0].status == 403
    assert ask(server, "/next", {"voter": "anna"}, Authorization=f"Bearer {server.token}")[0].status == 200
    server.shutdown()
    server.server_close()


def test_a_port_that_is_taken_is_said_in_one_line(served, tmp_path):
    with pytest.raises(UserError, match="cannot listen there"):
        LabelServer(Session(tmp_path, Queue(some_pairs(), 1.0)), port=served.server_address[1])


def test_a_full_disk_is_said_and_the_vote_is_taken_later(served, tmp_path, monkeypatch):
    _, state = ask(served, "/next", {"voter": "anna"})
    vote = {"voter": "anna", **said(state)}
    (tmp_path / "votes").write_text("a file where the folder should be")
    answer, told = ask(served, "/vote", vote)
    assert answer.status == 507 and "cannot be written" in told["error"]
    (tmp_path / "votes").unlink()
    assert ask(served, "/vote", vote)[0].status == 200
    assert len(read_votes(tmp_path / "votes").cast) == 1


def test_many_voters_at_once_lose_and_double_nothing(served, tmp_path):
    def sit(voter: str) -> None:
        _, state = ask(served, "/next", {"voter": voter})
        for _ in range(20):
            answer, state = ask(served, "/vote", {"voter": voter, **said(state)})
            assert answer.status == 200

    threads = [threading.Thread(target=sit, args=(f"voter {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_votes(tmp_path / "votes")
    assert len(found.cast) == 80 and not found.refused


SERVE = """
import sys
from pathlib import Path
from minirlhf.feedback.pairs import Queue
from minirlhf.labelling.server import LabelServer
from minirlhf.labelling.session import Session
from tests.labelling.conftest import some_pairs
server = LabelServer(Session(Path(sys.argv[1]), Queue(some_pairs(400), 1.0)), port=int(sys.argv[2]))
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("kills", [100 if SOAK else 3])
def test_kills_between_votes_lose_and_double_nothing(tmp_path, kills):
    """A voter whose page sends a vote again until it is answered, and a server that is killed at any moment."""
    port, process = 0, None

    def serve() -> None:
        nonlocal port, process
        command = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        port = int(process.stdout.readline())

    def send(path: str, body: dict) -> dict:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("POST", path, json.dumps(body), JSON)
                return json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                if process.poll() is not None:
                    serve()

    serve()
    try:
        answered, state = [], send("/next", {"voter": "anna"})
        for number in range(2 * kills):
            vote, victim = {"voter": "anna", **said(state)}, process
            if number % 2:
                delay = (number % 20) / 2000  # 0 to 10 ms: before, within and after the write
                threading.Timer(delay, os.kill, (victim.pid, signal.SIGKILL)).start()
            state = send("/vote", vote)
            answered.append(vote["id"])
            if number % 2:
                victim.wait(10)
    finally:
        process.kill()
    found = read_votes(tmp_path)
    assert list(found.cast) == answered and not found.refused


def test_the_first_pair_comes_within_two_seconds_of_the_command(tmp_path):
    rows = [{"split": "train", "prompt": row["prompt"], "summaries": [[row["completion"], True], [" another", True]]}
            for row in posts(1, "train", 1000)]  # fmt: skip
    write_jsonl(tmp_path / "data/collected/candidates.jsonl", rows)
    (tmp_path / "params.yaml").write_text((ROOT / "profiles/embedded.yaml").read_text())
    start = time.monotonic()
    command = [sys.executable, "-m", "minirlhf", "label", "--port", "0", "--no-open"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)
        connection.request("POST", "/next", json.dumps({"voter": "anna"}), JSON)
        assert json.loads(connection.getresponse().read())["ask"]
        took = time.monotonic() - start
        assert took < 2 or os.getloadavg()[0] > os.cpu_count(), took  # a busy machine proves nothing
    finally:
        process.kill()
        process.wait()


def test_the_page_names_all_that_its_script_looks_for():
    page, script = file("page.html"), file("page.js")
    for name in re.findall(r'\$\("([\w-]+)"\)', script):
        assert f'id="{name}"' in page or name == "packet", name
