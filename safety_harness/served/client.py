"""Ask a server questions: several at once, not too fast, again where an answer was lost, and never more than announced.

Only this module knows the HTTP library.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from safety_harness import __version__
from safety_harness.conversation import Asked, Asking, Conversation, asked_text
from safety_harness.errors import ConfigError, HarnessError, SourceError
from safety_harness.registry.server import Served
from safety_harness.served.reply import MOST_BYTES, Lost, NoReply, Reply, listed_models, model_entry, read_reply

# Pauses between two attempts double from the first to the longest one. A server that asks for more is not waited for.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WAIT = 0.5, 30.0, 300.0
# What is known of a server costs one request, and is of no use where it takes long.
SECONDS_FOR_MODELS = 10.0

Question = TypeVar("Question", bound=Asked | Asking)
Answered = Callable[[Question, Reply], None]
Failed = Callable[[Any, NoReply], None]
Request = Callable[[Any], tuple[str, Mapping[str, Any]]]
"""Makes of a question the path and the body of its request."""
Begun = Callable[[Any], str]
"""Makes of a question the words that its answer begins with, and that do not come back with it."""


@dataclass
class Client:
    """Asks one server. ``limit`` is the number of requests that it may send, and ``sent`` those that it has sent.

    Without a ``request`` of another form, a question is one of a chat, and ``begun`` is its prefill. ``direct``: no
    proxy stands between.
    ``failed`` is called with a question that has no answer in the end; without it, that ends all. ``sampled``: the
    probabilities of tokens are read.
    """

    server: Served
    max_new_tokens: int
    limit: int
    sent: int = 0
    request: Request | None = None
    begun: Begun | None = None
    direct: bool = False
    failed: Failed | None = None
    sampled: bool = False
    _key: str = field(default="", repr=False)
    _next_start: float = 0.0
    """Time before which no request starts: of the limit a minute, or because the server asked for a pause."""

    def __post_init__(self) -> None:
        self._key = read_key(self.server)

    def describe(self) -> dict[str, Any]:
        """Return what the server says about the model in its list of models; nothing where it has none."""
        return model_entry(asyncio.run(self._models()), self.server.model)

    def models(self) -> tuple[str, ...]:
        """Return the names in the server's list of models; nothing where it has none."""
        return listed_models(asyncio.run(self._models()))

    def ask(self, questions: Sequence[Question], answered: Answered[Question]) -> None:
        """Ask *questions* and call *answered* with each of them and its reply, in the order in which they come.

        Raises:
            ConfigError: the server does not continue an answer that a question begins, or takes no temperature.
            SourceError: a question could not be answered. Those that were answered before it are not lost.
            HarnessError: *answered* raised it.
        """
        try:
            asyncio.run(self._ask(questions, answered))
        except* HarnessError as group:
            error = _first(group)
        else:
            return
        raise error

    async def _ask(self, questions: Sequence[Question], answered: Answered[Question]) -> None:
        waiting = iter(questions)
        async with self._session() as session, asyncio.TaskGroup() as tasks:
            for _ in range(min(self.server.concurrency, len(questions))):
                tasks.create_task(self._work(session, waiting, answered))

    async def _work(
        self, session: httpx2.AsyncClient, waiting: Iterator[Question], answered: Answered[Question]
    ) -> None:
        for question in waiting:
            try:
                reply = await self._answer(session, question)
            except NoReply as error:
                if self.failed is None:
                    raise
                self.failed(question, error)
            else:
                answered(question, reply)

    async def _answer(self, session: httpx2.AsyncClient, question: Asked | Asking) -> Reply:
        """Return the reply to *question*, which is asked again as often as the registry allows.

        Raises:
            NoReply: there is none.
            SourceError: no more requests were announced, or the server asks for a long pause.
        """
        one = question if isinstance(question, Asking) else Asking(question)
        path: str = "/chat/completions"
        body: Mapping[str, Any]
        if self.request:
            path, body = self.request(question)
        else:
            body = self.server.body(one.asked, self.max_new_tokens, one.decoding)
        begun = one.asked.prefill if isinstance(one.asked, Conversation) else ""
        if self.begun:
            begun = self.begun(question)
        for attempt in range(1 + self.server.retries):
            await self._turn()
            try:
                return self._without_key(await self._exchange(session, "POST", path, body, begun))
            except NoReply as error:
                said = self._hidden(str(error))
                raise NoReply(f"{self.server}: {said}", error.status, why=said) from None
            except Lost as error:
                lost = error
            await self._pause(attempt, lost)
        kept = "" if self.request else " Answers so far are kept: run again once it answers."
        raise NoReply(
            f"{self.server}: gives no answer to {asked_text(one.asked)[:60]!r} in {1 + self.server.retries} attempts; "
            f"at last, {self._hidden(str(lost))}.{kept}",
            down=lost.down,
            why=self._hidden(str(lost)),
        )

    async def _turn(self) -> None:
        """Wait until a request may start, and count it.

        Raises:
            SourceError: no more were announced.
        """
        while (wait := self._next_start - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self.sent >= self.limit:
            raise SourceError(f"{self.server}: all of the {self.limit} requests that were announced are spent.")
        self.sent += 1
        if self.server.requests_per_minute:
            self._next_start = time.monotonic() + 60 / self.server.requests_per_minute

    async def _pause(self, attempt: int, lost: Lost) -> None:
        """Wait before another attempt: as long as the server asks for, or longer each time, and never all at once.

        Raises:
            SourceError: the server asks for more patience than a run has.
        """
        if attempt == self.server.retries:
            return
        if lost.after is not None and lost.after > LONGEST_WAIT:
            raise SourceError(
                f"{self.server}: {self._hidden(str(lost))}, and asks to wait {lost.after:.0f} seconds. Answers so far "
                "are kept: run again then, or lower `requests_per_minute`."
            )
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
        pause = (lost.after or 0.0) + longest * random.uniform(0.5, 1.0)
        if lost.after is not None:  # that holds for every request
            self._next_start = max(self._next_start, time.monotonic() + lost.after)
        await asyncio.sleep(pause)

    async def _exchange(
        self, session: httpx2.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None, begun: str
    ) -> Reply:
        """Send one request and return the reply, whose text begins with what the request has *begun*.

        Raises:
            Lost, NoReply: as :func:`read_reply`; or there was no whole response in time.
        """
        response = await self._response(session, method, path, body, self.server.timeout)
        return read_reply(*response, begun=begun, plain=self.request is not None, sampled=self.sampled)

    async def _response(
        self, session: httpx2.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of one response, all of which has to come within *seconds*."""
        content = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                session.stream(method, self.server.url + path, json=body) as response,
            ):
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Lost("it sends a compressed body, which it was asked not to")
                async for part in response.aiter_raw():
                    content += part
                    if len(content) > MOST_BYTES:
                        raise NoReply(f"sends more than {MOST_BYTES >> 20} MiB for one answer.")
        except TimeoutError:
            raise Lost(f"there is no whole answer within {seconds:g} seconds (`timeout`)") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise Lost(
                f"no whole answer comes back ({type(error).__name__}: {str(error)[:200]})",
                down=isinstance(error, httpx2.ConnectError),
            ) from None
        return response.status_code, response.headers, bytes(content)

    async def _models(self) -> bytes:
        """Return the server's list of models as it is sent; nothing where it has none."""
        async with self._session() as session:
            await self._turn()
            seconds = min(SECONDS_FOR_MODELS, self.server.timeout)
            try:
                status, _, body = await self._response(session, "GET", "/models", None, seconds)
            except (Lost, NoReply):  # the first question says what is wrong
                return b""
            return body if status == 200 else b""

    def _session(self) -> httpx2.AsyncClient:
        headers = {"accept-encoding": "identity", "user-agent": f"safety-harness/{__version__}"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False, trust_env=not self.direct)

    def _hidden(self, text: str) -> str:
        """Return what a server says, without the key that it may repeat."""
        return text.replace(self._key, "***") if self._key else text

    def _without_key(self, reply: Reply) -> Reply:
        texts: dict[str, Any] = {
            name: self._hidden(text) for name, text in vars(reply).items() if isinstance(text, str)
        }
        return replace(reply, **texts)


def unreachable(server: Served) -> str:
    """Return why nothing answers where *server* should be; empty if something does, or if a proxy stands between."""
    address = urlsplit(server.url)
    host = str(address.hostname)
    if getproxies() and not proxy_bypass(host):
        return ""
    try:
        with socket.create_connection((host, address.port or (443 if address.scheme == "https" else 80)), timeout=5):
            return ""
    except OSError as error:
        return f"nothing answers at {address.netloc} ({error.strerror or error})"


def read_key(server: Served) -> str:
    """Return the key that is sent to *server*; empty where it takes none.

    Raises:
        ConfigError: the environment does not hold it, or it is none.
    """
    if server.key_env is None:
        return ""
    key = os.environ.get(server.key_env, "").strip()
    if not key:
        raise ConfigError(f"{server}: ${server.key_env} (`key_env`) is not set. Set it to the key of the server.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"${server.key_env}: is no key: it holds a space, or what is no ASCII letter.")
    return key


def _first(group: BaseExceptionGroup[HarnessError]) -> HarnessError:
    """Return the first error of a *group*."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, HarnessError)
    return error
