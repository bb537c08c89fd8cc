"""A Hub of models on this machine, for huggingface_hub as it is: what it asks over HTTP, answered.

Of the real one it has what creating, committing and fetching take; anything else is a 501, which no
test expects.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repo:
    """A model: its versions by commit, and which of them a branch or a tag is."""

    commits: dict[str, Files] = field(default_factory=lambda: {"0" * 40: {}})
    names: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    private: bool = False
    gated: bool = False

    def commit(self, files: Files, *, tag: str | None = None) -> None:
        """Make these the files of ``main``, and of a tag."""
        content = [part for name in sorted(files) for part in (name.encode(), files[name])]
        sha = hashlib.sha1(b"\0".join(content)).hexdigest()
        self.commits[sha] = files
        self.names |= {name: sha for name in ("main", tag) if name}

    def sha(self, revision: str) -> str | None:
        return self.names.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> Files:
        return self.commits[self.names["main"]]


class Hub:
    """Its models by ``ORG/NAME``, its address, and what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.asked.append(f"{method} {path}")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.repos
            private = asked.get("visibility") == "private"
            self.repos.setdefault(name, Repo(private=private))
            return _json({"url": f"{self.url}/{name}"}, 409 if known else 200)
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        if match is None:
            return 501, {}, b""
        repo = self.repos.get(match[1])
        if repo is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if file is not None and repo.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        revision = unquote((match[2] if file else match[3]) or "main")
        if (sha := repo.sha(revision)) is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if file is not None:
            return _file(repo.commits[sha], file[3], sha)
        return self._api(match[1], repo, match[2], sha, body)

    def _api(self, name: str, repo: Repo, what: str | None, sha: str, body: bytes) -> Any:
        files = repo.commits[sha]
        if what in (None, "revision"):
            siblings = [{"rfilename": file} for file in files]
            return _json({"id": name, "sha": sha, "private": False, "siblings": siblings})
        if what == "tree":
            kinds = [
                {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                for path, content in files.items()
            ]
            return _json(kinds)
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return _json({"files": [{"path": each["path"], **modes} for each in asked]})
        if what == "commit":
            files = dict(files)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            repo.commit(files)
            sha = repo.names["main"]
            return _json({"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha})
        return 501, {}, b""


def _json(value: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _file(files: Files, name: str, sha: str) -> tuple[int, dict[str, str], bytes]:
    if name not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    return 200, {"X-Repo-Commit": sha, "ETag": f'"{_oid(files[name])}"'}, files[name]


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        status, headers, content = self.hub.answer(self.command, path, body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests look at what was asked."""


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub without models, while this is open."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
