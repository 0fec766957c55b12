"""A server with the interface of OpenAI on 127.0.0.1, which answers well or in any other way that a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REFUSAL, ANSWER = "I cannot help with that.", "Sure, take two of them."


@dataclass(frozen=True)
class Sent:
    """A response: its ``pieces`` are sent ``seconds`` apart, and announced as ``length`` bytes, if that is given."""

    status: int = 200
    pieces: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    length: int | None = None


def sent(value: object, status: int = 200, **headers: str) -> Sent:
    """Return the response whose body is *value* in JSON."""
    return Sent(status, (json.dumps(value).encode(),), {"content-type": "application/json", **headers})


def completion(content: object = ANSWER, finish: str = "stop", system: str = "fp_1", **message: object) -> Sent:
    """Return the response of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    table = {"id": "1", "object": "chat.completion", "model": "tiny-1", "choices": [choice]}
    return sent({**table, **({"system_fingerprint": system} if system else {})})


Reaction = Callable[[str, int], Sent]


@dataclass
class Server:
    """Answers each question by ``reaction(question, how often it was asked before)``, and notes what it was asked.

    Where there is a ``sampler``, it answers the whole request instead.
    """

    reaction: Reaction
    sampler: Callable[[dict[str, Any]], Sent] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The body of each request for an answer."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        """Go away: from now on, connections are refused."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def questions(self) -> list[str]:
        """Every question that was asked, in order."""
        return [request["messages"][-1]["content"] for request in self.requests]

    def react(self, body: dict[str, Any]) -> Sent:
        """Note a request, and return the response to it."""
        question = body["messages"][-1]["content"]
        with self._lock:
            before = self.questions.count(question)
            self.requests.append(body)
        return self.sampler(body) if self.sampler else self.reaction(question, before)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            self._send(sent({"object": "list", "data": [{"id": "tiny", "owned_by": "us", "created": time.time_ns()}]}))

        def do_POST(self) -> None:
            server.paths.append(self.path)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server._lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                self._send(server.react(body))
            except OSError:
                pass  # the client has gone
            finally:
                with server._lock:
                    server.at_once -= 1

        def _send(self, response: Sent) -> None:
            self.send_response(response.status)
            length = sum(map(len, response.pieces)) if response.length is None else response.length
            for name, value in {"content-length": str(length), **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in response.pieces:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(response.seconds)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server names it)
            """Requests are kept in ``Server.requests``; a test log is no place for them."""

    return Handler
