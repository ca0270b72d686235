"""A loopback server that speaks as much of the chat completions protocol as a judge needs, and obeys the test."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers with `reply(request)`: a text, or (status, headers, body); `requests` and `headers` are what came."""

    daemon_threads = True
    request_queue_size = 32  # a full queue costs a client a second

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.requests, self.headers, self.most_at_once = reply, [], [], 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self._open, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that gave up waiting

    def answer(self, request, headers):
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            return self.reply(request)
        finally:
            with self._lock:
                self._open -= 1


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.answer({**request, "path": self.path}, self.headers)
        status, headers, body = reply if isinstance(reply, tuple) else (200, {}, completion(reply))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), self.server.piece):
            self.wfile.write(body[start : start + self.server.piece])
            time.sleep(self.server.pause)

    def log_message(self, *args):
        pass


ChatServer.piece, ChatServer.pause = 1 << 20, 0.0  # bytes sent at a time, and seconds after them


def completion(content, finish_reason="stop", **message) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": content, **message}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}).encode()


def shown(request) -> tuple[str, str]:
    """The two summaries in a question, as shown."""
    text = request["messages"][0]["content"]
    return tuple(text.split(f"<summary_{name}>\n")[1].split(f"\n</summary_{name}>")[0] for name in "AB")


def longer(request) -> str:
    """A fair judge: the longer summary wins."""
    first, second = shown(request)
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
