"""A hub on the loopback: an HTTP server with those endpoints of the Hugging Face hub that MiniRLHF makes use of.

    GET  /api/{models,datasets}/NAME[/revision/REVISION]           which commit a revision is at
    GET  /api/{models,datasets}/NAME/tree/COMMIT?recursive=True    its files with sizes and hashes
    HEAD, GET  [/datasets]/NAME/resolve/COMMIT/FILE                a small file, or where a large one is
    HEAD, GET  /cdn/SHA256                                         a large file, in ranges too
    POST /api/repos/create                                         a new repository
    POST /api/models/NAME/preupload/REVISION                       which files are large
    POST /NAME.git/info/lfs/objects/batch, PUT /lfs/SHA256         where a large file goes; the file
    POST /api/models/NAME/commit/REVISION                          a commit: small files, and which large ones
    POST /api/validate-yaml                                        whether a card's metadata can be read

Headers and error codes are the real hub's. Anything else is answered with 404 and noted in `unknown`.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".parquet")  # kept by git LFS on the hub
REPO = re.compile(r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/([^/]+))?/?")
IGNORED = ("/api/agent-harnesses",)  # which agents huggingface_hub is to recognise; only where one seems to run it
WRITE = re.compile(r"/(?:api/models/)?(.+?)(/preupload|/commit|\.git/info/lfs/objects/batch)(?:/[^/]+)?")
FILE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """A model or a data set: its files by commit, and which commit each branch and tag is at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False  # not to be seen without TOKEN
    gated: bool = False  # to be seen, but no file is given without TOKEN


class Hub:
    """The hub. Repositories may be changed, and faults put in, while it runs."""

    TOKEN = "hf_loopback"
    READER = "hf_reader"  # a token that may not write

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []  # "GET /api/models/a/b"
        self.unknown: list[str] = []
        self.cut_after: int | None = None  # a large file's connection is cut after so many bytes of it, always
        self.damaged: set[bytes] = set()  # files that are sent with their last byte changed
        self.status: int | None = None  # what is answered to every request, as 503
        self.uploaded: dict[str, bytes] = {}  # large files by SHA-256; not in any repository before a commit names them
        self.cut_upload = False  # the connection is cut in the middle of a large file, always
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, at the same address as before."""
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.connections = []
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Be down: connections are refused, those that are open are closed."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in self._server.connections:
                with contextlib.suppress(OSError):  # closed already
                    connection.shutdown(socket.SHUT_RDWR)
            self._server = None

    def commit(self, kind: str, name: str, source: Path | dict[str, bytes], *refs: str) -> str:
        """A new commit with the files of a folder, or of a dict; `refs` ("main" if none are given) move there."""
        if isinstance(source, Path):
            files = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
            source = {name: path.read_bytes() for name, path in files.items()}
        repository = self.repositories.setdefault((kind, name), Repository())
        content = repr((kind, name, len(repository.commits), sorted(source.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        repository.commits[commit] = source
        repository.refs |= dict.fromkeys(refs or ("main",), commit)
        return commit


class Handler(BaseHTTPRequestHandler):
    """One request to the hub."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path.replace("%2F", "\0"))  # a slash inside a revision is not a separator
        self.hub.requests.append(f"{self.command} {path}".replace("\0", "%2F"))
        if self.hub.status is not None:
            self._fail(self.hub.status)
        elif match := REPO.fullmatch(path):
            self._repository(*match.groups())
        elif path.startswith("/cdn/"):
            self._large(path.removeprefix("/cdn/"))
        elif match := FILE.fullmatch(path):
            self._file(*match.groups())
        else:
            if path not in IGNORED:
                self.hub.unknown.append(self.requestline)
            self._fail(404)

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        assert self.headers["Authorization"] is None
        length = int(self.headers["Content-Length"])
        if self.hub.cut_upload:
            self.rfile.read(length // 2)
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        content = self.rfile.read(length)
        assert self.path == f"/lfs/{hashlib.sha256(content).hexdigest()}"
        self.hub.uploaded[self.path.removeprefix("/lfs/")] = content
        self._send(b"")

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        token, match = self.headers["Authorization"], WRITE.fullmatch(path)
        if token is None:
            return self._fail(401, message="Invalid username or password.")
        if token != f"Bearer {Hub.TOKEN}":
            return self._fail(403, message="You don't have the rights to create or to write here")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            if ("model", name) in self.hub.repositories:
                return self._json({"url": f"{self.hub.url}/{name}"}, 409)
            self.hub.repositories["model", name] = Repository(private=asked.get("visibility") == "private")
            self.hub.commit("model", name, {".gitattributes": b"*.safetensors filter=lfs"})
            return self._json({"url": f"{self.hub.url}/{name}"})
        if match is None:
            self.hub.unknown.append(self.requestline)
            return self._fail(404)
        name, what = match[1], match[2].rpartition("/")[2]
        {"preupload": self._preupload, "batch": self._batch, "commit": self._commit}[what](name, body)

    def _preupload(self, name: str, body: bytes) -> None:
        modes = {True: "lfs", False: "regular"}
        files = [
            {
                "path": file["path"],
                "uploadMode": modes[file["path"].endswith(LARGE)],
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, name: str, body: bytes) -> None:
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.hub.uploaded:
                each["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}", "header": {}}}
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        repository, lines = self.hub.repositories["model", name], [json.loads(line) for line in body.splitlines()]
        files = dict(repository.commits.get(repository.refs.get("main", ""), {}))
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.uploaded[line["value"]["oid"]]
        commit = self.hub.commit("model", name, files)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def _json(self, value: dict, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _find(self, kind: str, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files; or None, and the error is sent."""
        repository, token = self.hub.repositories.get((kind, name)), self.headers["Authorization"]
        if token not in (None, f"Bearer {Hub.TOKEN}", f"Bearer {Hub.READER}"):
            return self._fail(401, message="Invalid credentials in Authorization header")
        if repository is None or (repository.private and token is None):
            return self._fail(401 if token is None else 404, "RepoNotFound")
        if repository.gated and token is None and "/resolve/" in self.path:
            return self._fail(401, "GatedRepo")
        revision = (revision or "main").replace("\0", "/")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._fail(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def _repository(self, kinds: str, name: str, view: str | None, revision: str | None) -> None:
        found = self._find(kinds.removesuffix("s"), name, revision)
        if found is None:
            return
        commit, files = found
        if view == "tree":
            self._send(json.dumps([describe(name, content) for name, content in sorted(files.items())]).encode())
        else:
            access = {"private": self.hub.repositories[kinds.removesuffix("s"), name].private}
            siblings = [{"rfilename": name} for name in sorted(files)]
            self._send(json.dumps({"id": name, "sha": commit, "siblings": siblings, "tags": []} | access).encode())

    def _file(self, dataset: str | None, name: str, revision: str, file: str) -> None:
        found = self._find("dataset" if dataset else "model", name, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            return self._fail(404, "EntryNotFound")
        content, entry = files[file], describe(file, files[file])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            return self._send(self._damage(content), headers)
        sha256 = entry["lfs"]["oid"]
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # On another host, as far as names go: tokens must not be sent there.
        self._send(b"", headers | {"Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{sha256}"}, 302)

    def _large(self, sha256: str) -> None:
        assert self.headers["Authorization"] is None
        commits = [files for repo in self.hub.repositories.values() for files in repo.commits.values()]
        contents = [content for files in commits for content in files.values()]
        content = next(content for content in contents if hashlib.sha256(content).hexdigest() == sha256)
        wanted, status, headers = self._damage(content), 200, {}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or ""):
            first = int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            wanted, status = wanted[first:], 206
        if self.hub.cut_after is None:
            return self._send(wanted, headers, status)
        sent = len(content) - len(wanted)
        self._send(wanted, headers, status, cut_after=max(self.hub.cut_after - sent, 0))

    def _damage(self, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if content in self.hub.damaged else content

    def _fail(self, status: int, code: str = "", message: str = "") -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": message or code}, status)

    def _send(
        self, body: bytes, headers: dict[str, str] | None = None, status: int = 200, cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut_after is None else body[:cut_after])
        if cut_after is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def describe(name: str, content: bytes) -> dict:
    """A file as the hub's tree listing has it."""
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    stored = pointer if name.endswith(LARGE) else content
    oid = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
    entry = {"type": "file", "path": name, "size": len(content), "oid": oid}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return entry
