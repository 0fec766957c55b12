"""A hub of models and datasets on 127.0.0.1: as much of its HTTP interface as the real clients ask for."""

from __future__ import annotations

import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

DATASET = "datasets/"


@dataclass(frozen=True)
class Commit:
    """The files of one revision."""

    files: Mapping[str, bytes]

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass(frozen=True)
class RefusalError(Exception):
    """What the hub answers instead of content; *code* is what its clients tell refusals apart by."""

    status: int
    code: str


@dataclass
class Hub:
    """The repositories served, what goes wrong with them, and every request that came.

    A repository's name is ``org/name``, with ``datasets/`` before it for a dataset.
    """

    repositories: dict[str, dict[str, Commit]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cuts: dict[str, Iterator[int]] = field(default_factory=dict)
    """File -> how many bytes each of its downloads gets before the connection is closed."""
    short: set[str] = field(default_factory=set)
    """Files of which a download delivers, and announces, one byte less than there is."""
    requests: list[str] = field(default_factory=list)
    visibility: dict[str, str] = field(default_factory=dict)
    """Of the repositories that a client made."""

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Serve *files* under *revision*, and under the commit hash that is returned."""
        commit = Commit(files)
        self.repositories.setdefault(name, {}).update({revision: commit, commit.sha: commit})
        return commit.sha

    def stop(self) -> None:
        """Go away: from now on, connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def commit(self, name: str, revision: str) -> Commit:
        if name not in self.repositories:
            # The hub tells a stranger neither that a repository is private nor that there is none.
            raise RefusalError(401, "RepoNotFound")
        if revision not in self.repositories[name]:
            raise RefusalError(404, "RevisionNotFound")
        return self.repositories[name][revision]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            hub.requests.append(f"{self.command} {url.path}")
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            try:
                match parts:
                    case ["api", "models" | "datasets" as kind, org, name]:
                        self._info(_full(kind, org, name), "main")
                    case ["api", "models" | "datasets" as kind, org, name, "revision", revision]:
                        self._info(_full(kind, org, name), revision)
                    case ["api", "models" | "datasets" as kind, org, name, "tree", revision, *folder]:
                        recursive = "recursive=true" in url.query.lower()
                        self._tree(_full(kind, org, name), revision, "/".join(folder), recursive=recursive)
                    case ["datasets", org, name, "resolve", revision, *file]:
                        self._file(_full("datasets", org, name), revision, "/".join(file))
                    case [org, name, "resolve", revision, *file]:
                        self._file(_full("models", org, name), revision, "/".join(file))
                    case _:
                        raise RefusalError(404, "NotFound")
            except RefusalError as refusal:
                self._send(refusal.status, b"", {"X-Error-Code": refusal.code})

        do_HEAD = do_GET  # noqa: N815  (http.server names it)

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            hub.requests.append(f"{self.command} {url.path}")
            given = self.rfile.read(int(self.headers["Content-Length"]))
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            try:
                match parts:
                    case ["api", "repos", "create"]:
                        about = json.loads(given)
                        name = f"{about['organization']}/{about['name']}"
                        if name in hub.gated:
                            raise RefusalError(403, "Forbidden")
                        hub.visibility[name] = about.get("visibility", "public")
                        hub.repositories.setdefault(name, {"main": Commit({})})
                        self._send_json({"url": f"{hub.url}/{name}"})
                    case ["api", "validate-yaml"]:
                        self._send_json({"errors": [], "warnings": []})
                    case ["api", "models", _, _, "preupload", _]:
                        files = [entry["path"] for entry in json.loads(given)["files"]]
                        modes = [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
                        self._send_json({"files": modes})
                    case ["api", "models", org, name, "commit", revision]:
                        lines = [json.loads(line) for line in given.splitlines()]
                        deleted = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
                        added = {
                            line["value"]["path"]: b64decode(line["value"]["content"])
                            for line in lines
                            if line["key"] == "file"
                        }
                        full = f"{org}/{name}"
                        kept = {
                            path: was for path, was in hub.commit(full, revision).files.items() if path not in deleted
                        }
                        oid = hub.add(full, {**kept, **added}, revision)
                        self._send_json({"commitUrl": f"{hub.url}/{full}/commit/{oid}", "commitOid": oid})
                    case _:
                        raise RefusalError(404, "NotFound")
            except RefusalError as refusal:
                self._send(refusal.status, b"", {"X-Error-Code": refusal.code})

        def _info(self, name: str, revision: str) -> None:
            commit = hub.commit(name, revision)
            self._send_json(
                {
                    "id": name.removeprefix(DATASET),
                    "sha": commit.sha,
                    "gated": "auto" if name in hub.gated else False,
                    "siblings": [{"rfilename": file} for file in commit.files],
                }
            )

        def _tree(self, name: str, revision: str, folder: str, *, recursive: bool) -> None:
            start = f"{folder}/" if folder else ""
            below = {
                file.removeprefix(start): content
                for file, content in hub.commit(name, revision).files.items()
                if file.startswith(start)
            }
            if folder and not below:
                raise RefusalError(404, "EntryNotFound")
            entries: dict[str, dict[str, Any]] = {}
            for file, content in below.items():
                *folders, _ = file.split("/")
                for depth in range(1, len(folders) + 1):
                    path = start + "/".join(folders[:depth])
                    entries[path] = {"type": "directory", "path": path, "size": 0, "oid": _etag(path.encode())}
                path = start + file
                entries[path] = {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
            if not recursive:
                entries = {path: entry for path, entry in entries.items() if "/" not in path.removeprefix(start)}
            self._send_json(list(entries.values()))

        def _file(self, name: str, revision: str, file: str) -> None:
            commit = hub.commit(name, revision)
            if name in hub.gated:
                raise RefusalError(401, "GatedRepo")
            if file not in commit.files:
                raise RefusalError(404, "EntryNotFound")
            content = commit.files[file]
            headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit.sha}
            if self.command == "GET" and file in hub.short:
                content = content[:-1]
            status, start, end = 200, 0, len(content)
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(len(content), int(last) + 1) if last else len(content)
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self._send(status, content[start:end], headers, next(hub.cuts[file]) if self._is_cut(file) else None)

        def _is_cut(self, file: str) -> bool:
            return self.command == "GET" and file in hub.cuts

        def _send_json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:cut])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server names it)
            """Requests are kept in ``Hub.requests``; a test log is no place for them."""

    return Handler


def _full(kind: str, org: str, name: str) -> str:
    return f"{DATASET if kind == 'datasets' else ''}{org}/{name}"


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
