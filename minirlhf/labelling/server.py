"""The page's server: five addresses, so the standard library's does, with no package to install or to keep up.

It has a thread a connection, since a browser keeps several open and two voters may sit at two machines; votes are taken
one at a time. It answers this machine alone unless it is told to listen elsewhere, and then only who has the token that
is in the address. It answers nobody who reached it by another host's name (DNS rebinding), and takes votes as JSON
only, which no page from elsewhere can send without being asked first.
"""

import hmac
import ipaddress
import json
import secrets
import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from minirlhf.labelling.session import Refused, Session
from minirlhf.runtime.errors import UserError, printable

MOST_BYTES = 65_536  # of a request
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LabelServer(ThreadingHTTPServer):
    """Serves one session.

    Args:
        host: 127.0.0.1, or another address of this machine to be reached from elsewhere.
        port: 0 for any that is free.

    Raises:
        UserError: nothing can listen there.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0):
        self.session = session
        self.token = None if is_loopback(host) else secrets.token_urlsafe(16)
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(f"{host}:{port}: cannot listen there: {error.strerror or error}") from error

    @property
    def address(self) -> str:
        """What a voter opens. The token stands behind a #, which browsers send nobody."""
        host, port = self.server_address[:2]
        host = socket.gethostname() if host == "0.0.0.0" else host  # of all its addresses the one that has a name
        return f"http://{host}:{port}/" + (f"#{self.token}" if self.token else "")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A closed tab is no error; anything else is shown as always."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: LabelServer
    protocol_version = "HTTP/1.1"  # keeps the connection, so that a vote needs no new one
    disable_nagle_algorithm = True
    timeout = 600

    def do_GET(self) -> None:
        """The page and its two files, which hold no data."""
        if not self._is_meant_for_us():
            return
        if self.path not in FILES:
            self._answer(404, {"error": "no such page"})
            return
        name, kind = FILES[self.path]
        self._send(200, file(name).encode(), f"{kind}; charset=utf-8")

    def do_POST(self) -> None:
        """What the page asks and says: /next, /vote and /undo."""
        body = self._body()
        if body is None or not self._is_meant_for_us():
            return
        if self.server.token and not hmac.compare_digest(self.headers.get("Authorization", "").encode(),
                                                         f"Bearer {self.server.token}".encode()):  # fmt: skip
            self._answer(403, {"error": "the address lacks its token: open it as it was printed"})
            return
        session = self.server.session
        actions: dict[str, Callable[[str, dict], dict]] = {
            "/next": lambda voter, said: session.next(voter),
            "/vote": session.vote,
            "/undo": lambda voter, said: session.undo(voter, str(said.get("id"))),
        }
        if self.path not in actions:
            self._answer(404, {"error": "no such page"})
            return
        try:
            said = json.loads(body)
            voter = name(said["voter"])
            self._answer(200, actions[self.path](voter, said))
        except Refused as error:
            self._answer(409, {"error": str(error)})
        except UserError as error:
            self._answer(507, {"error": str(error)})
        except (ValueError, KeyError, TypeError, RecursionError):
            self._answer(400, {"error": "expected JSON with a voter's name"})

    def _is_meant_for_us(self) -> bool:
        """Refuse requests under a strange host's name, and what a page from elsewhere sends."""
        host, port = self.server.server_address[:2]
        own = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", host)}
        asked, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        trusted = asked in own or self.server.token is not None
        if trusted and origin in (None, f"http://{asked}"):
            return True
        self._answer(403, {"error": "not the address that was printed"})
        return False

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MOST_BYTES:
            self.close_connection = True
            self._answer(413, {"error": "too long, or of unknown length"})
            return None
        body = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            self._answer(415, {"error": "expected JSON"})
            return None
        return body

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for header, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self._headers_buffer.append(b"\r\n" + body)  # in one packet with the headers
        self.flush_headers()

    def version_string(self) -> str:
        """The Server header."""
        return "minirlhf"

    def log_message(self, format: str, *args: Any) -> None:
        """Votes are on the disk; a line a request would only hide the address."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name(value: Any) -> str:
    """A voter's name: up to 40 characters that can be printed, spaces around it left out. ValueError for another."""
    text = " ".join(str(value).split()) if isinstance(value, str) else ""
    if not 0 < len(text) <= 40 or printable(text) != text:
        raise ValueError("expected a name of 1 to 40 characters")
    return text


def file(name: str) -> str:
    """One of the page's files."""
    return resources.files("minirlhf.labelling").joinpath(name).read_text(encoding="utf-8")
