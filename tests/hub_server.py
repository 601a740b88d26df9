"""A hub on the loopback address: the part of the hub's file API that profiles use, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repo:
    """Commits, oldest first: their files by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def find(self, revision: str) -> str | None:
        shas = list(self.commits)
        return shas[-1] if revision == "main" and shas else revision if revision in shas else None


@dataclass
class Hub:
    """Repositories, what was asked for, and the faults to answer with.

    Attributes
    ----------
    lfs : bool
        Whether tensors are uploaded as large files.
    short : str
        Name of a file whose body ends before its ``Content-Length``.
    lies : str
        A commit that answers name in place of the one that was asked for.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    lfs: bool = False
    short: str = ""
    lies: str = ""


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def do_PUT(self) -> None:
        self.state.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, b"")

    def _get(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.state.asked.append((self.command, path))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            repo = self.state.repos.get(found[1])
            sha = repo and repo.find(found[2] or "main")
            if not repo or (found[2] and not sha):
                return self._missing("RevisionNotFound" if repo else "RepoNotFound")
            names = [{"rfilename": name} for name in (repo.commits[sha] if sha else {})]
            return self._json({"id": found[1], "sha": sha, "private": repo.private, "siblings": names})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self.state.repos.get(found[1])
            sha = repo and repo.find(found[2])
            if not repo or not sha:
                return self._missing("RevisionNotFound" if repo else "RepoNotFound")
            data = repo.commits[sha].get(found[3])
            commit = {"X-Repo-Commit": self.state.lies or sha}
            if data is None:
                return self._missing("EntryNotFound", commit)
            headers = {**commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Content-Length": str(len(data))}
            if body and found[3] == self.state.short:
                data, headers["Content-Length"] = data[:-9], str(len(data) - 9)
            return self._answer(200, data if body else b"", headers)
        return self._missing("RepoNotFound")

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self._body()
        self.state.asked.append((self.command, path))
        if path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}"
            code = 409 if name in self.state.repos else 200
            private = said.get("private", said.get("visibility") == "private")
            self.state.repos.setdefault(name, Repo(private=private))
            return self._json({"url": f"{self.state.url}/{name}"}, code)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if self.state.lfs and file["path"].endswith("safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.state.url}/objects/{one['oid']}", "header": {}}}}
                for one in wanted
            ]
            return self._json({"transfer": "basic", "objects": actions})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files: dict[str, bytes] = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.state.objects[value["oid"]]
            sha = self.state.repos[found[1]].commit(files)
            url = f"{self.state.url}/{found[1]}/commit/{sha}"
            return self._json({"success": True, "commitOid": sha, "commitUrl": url})
        return self._missing("RepoNotFound")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, value: Any, code: int = 200) -> None:
        self._answer(code, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, why: str, headers: dict[str, str] | None = None) -> None:
        self._answer(404, b"", {"X-Error-Code": why, **(headers or {})})

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
