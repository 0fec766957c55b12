"""Read what a server sent back: an answer, an answer that was kept back, a reason to ask again, or an end."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safety_harness.errors import SourceError, masked
from safety_harness.reading import Reader

# The longest answers are some hundred thousand characters. What is more is no answer.
MOST_BYTES = 4 << 20
_SHOWN = 200
_JSON = Reader(SourceError, advice="")
# How servers name a filter that took the place of an answer.
_FILTERS = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_FILTERING_STATUS = (400, 403, 422)
_PASSING_STATUS = (408, 409, 425, 429)
# How routers and servers finish an answer whose generation failed.
_BROKEN_OFF = ("error", "abort")
# A quota does not come back while a run waits.
_NO_QUOTA = "insufficient_quota"


@dataclass(frozen=True)
class Sampled:
    """One token of an answer as bytes, and the log-probabilities of the tokens that could have stood there."""

    token: bytes
    odds: Mapping[bytes, float]


@dataclass(frozen=True)
class Reply:
    """One answer: the ``text`` that the user is shown, and the ``thought`` that a server reports next to it.

    ``withheld`` says that a filter, or a call of a tool, stands where an answer should: it cannot be scored.
    """

    text: str
    thought: str = ""
    finish: str = ""
    withheld: bool = False
    model: str = ""
    fingerprint: str = ""
    tokens: tuple[int, ...] | None = None
    """The answer's tokens, where a completion brings them."""
    sampled: tuple[Sampled, ...] | None = None
    """The answer's tokens with their probabilities, where these were asked for and came."""

    @property
    def answer(self) -> str:
        """The text; a thought that no text follows is an answer that does not end its thought."""
        return self.text if self.text or not self.thought else f"<think>{self.thought}"


class Lost(Exception):  # noqa: N818  (asked again, it may come)
    """An answer that did not come, for a reason that may pass. ``after`` are the seconds that the server asks for.

    ``down`` says that nobody takes the connection.
    """

    def __init__(self, reason: str, after: float | None = None, *, down: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.down = down


class NoReply(SourceError):  # noqa: N818  (it is about one question)
    """One question that has no answer in the end. ``status`` is that of a response that says why, or 0.

    ``why`` is the shortest form of the message, and ``down`` as in :class:`Lost`.
    """

    def __init__(self, message: str, status: int = 0, *, down: bool = False, why: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.down = down
        self.why = why or message


def read_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    begun: str = "",
    plain: bool = False,
    sampled: bool = False,
) -> Reply:
    """Return the answer in a response: a chat completion, or a *plain* one; with what was *sampled*, on demand.

    The answer begins with what the request has *begun*.

    Raises:
        Lost: there is none, and there may be one later.
        NoReply: there is none, and asking again would be of no use.
    """
    if 200 <= status < 300:
        return _answer(_table(body), begun=begun, plain=plain, sampled=sampled)
    error = _error(body)
    if status in _FILTERING_STATUS and any(name in error for name in _FILTERS):
        return Reply("", finish="content_filter", withheld=True)
    said = f"{status} ({_one_line(error)})" if error else str(status)
    if 300 <= status < 400:
        raise NoReply(
            f"answers {status}, which leads elsewhere ({_one_line(headers.get('location', 'it does not say where'))}). "
            "A question and its key go nowhere but to `url`: set that to the address that answers.",
            status,
        )
    if (status in _PASSING_STATUS and _NO_QUOTA not in error) or status >= 500:
        raise Lost(f"it answers {said}", _retry_after(headers.get("retry-after", "")))
    raise NoReply(f"answers {said}. {_ADVICE.get(status, _NO_ADVICE)}", status)


_ADVICE = {
    401: "Check the key: `key_env` names the environment variable that holds it.",
    403: "Check the key (`key_env`), and what it may ask.",
    404: "Check `url`, which often ends in /v1, and `model`.",
    429: "Its quota is used up.",
}
_NO_ADVICE = "Check what it takes: `model`, `omit` and `extra` in the registry, and the length of the question."


def _answer(table: Mapping[str, Any], *, begun: str, plain: bool, sampled: bool) -> Reply:
    """Return the answer of a completion.

    Raises:
        Lost: it is none, or broke off.
    """
    match table.get("choices"):
        case [{"message": dict() as message} as choice, *_]:
            pass
        case [{"text": str() as content} as choice, *_] if plain:
            message = {"content": content}
        case _:
            raise Lost(f"what it sends is no {'' if plain else 'chat '}completion")
    finish = _text(choice.get("finish_reason"))
    if (error := choice.get("error") or table.get("error")) or finish in _BROKEN_OFF:
        raise Lost(f"its answer broke off ({_one_line(str(error or finish))})")
    text = "\n".join(part for part in (_content(message.get("content")), _text(message.get("refusal"))) if part.strip())
    filtered = finish == "content_filter"  # what came before it is no whole answer
    called = bool(message.get("tool_calls") or message.get("function_call"))
    return Reply(
        "" if filtered else (begun + text).strip(),
        "" if filtered else _text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        finish,
        withheld=filtered or (called and not text),
        model=_text(table.get("model"))[:_SHOWN],
        fingerprint=_text(table.get("system_fingerprint"))[:_SHOWN],
        tokens=_tokens(choice.get("token_ids")),
        sampled=_sampled(choice.get("logprobs")) if sampled else None,
    )


def _tokens(value: Any) -> tuple[int, ...] | None:
    """Return the tokens of an answer; None where there are none, or they are no tokens."""
    numbers = isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
    return tuple(value) if numbers else None


def _sampled(value: Any) -> tuple[Sampled, ...] | None:
    """Return the tokens of an answer with their probabilities; None where one of them is not as documented."""
    entries = value.get("content") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not entries:
        return None
    sampled = []
    for entry in entries:
        others = entry.get("top_logprobs") if isinstance(entry, dict) else None
        odds = [_odds(one) for one in (entry, *(others if isinstance(others, list) else []))]
        known = [one for one in odds if one is not None]
        if len(known) < len(odds):
            return None
        sampled.append(Sampled(known[0][0], dict(known)))
    return tuple(sampled)


def _odds(entry: Any) -> tuple[bytes, float] | None:
    """Return one token and its log-probability; None where there is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return None
    number, raw = entry.get("logprob"), entry.get("bytes")  # a token may be half of a character
    if isinstance(number, bool) or not isinstance(number, int | float) or not number < math.inf:
        return None  # -inf is the token that a grammar forbids
    if isinstance(raw, list) and all(type(each) is int and 0 <= each < 256 for each in raw):
        return bytes(raw), float(number)
    return entry["token"].encode("utf-8", "replace"), float(number)


def _content(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts.

    Raises:
        Lost: it is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text", "") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Lost("the content of its message is no text")
    return "".join(map(str, texts))


def _table(body: bytes) -> dict[str, Any]:
    """Return the object of a JSON *body*.

    Raises:
        Lost: there is none, as where a proxy sends a page or the body is cut short.
    """
    try:
        table = _JSON.parse(body.decode("utf-8"), "it", finite=False)
    except (UnicodeDecodeError, SourceError):
        table = None
    if not isinstance(table, dict):
        raise Lost(f"what it sends is no JSON object: {_one_line(body[:_SHOWN].decode('utf-8', 'replace'))!r}")
    return table


def _error(body: bytes) -> str:
    """Return what an error's body says: its code and message, or its first characters."""
    try:
        table = _table(body)
    except Lost:
        return body[:_SHOWN].decode("utf-8", "replace")
    inner = table.get("error", table)
    if isinstance(inner, dict):
        known = [inner.get(name) for name in ("code", "type", "message", "detail")]
        deeper = inner.get("innererror")
        known += [deeper.get("code")] if isinstance(deeper, dict) else []
        return " ".join(str(fact) for fact in known if fact) or json.dumps(inner)[:_SHOWN]
    return str(inner)


def _retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or the date at which to come again."""
    try:
        seconds = float(text)
    except ValueError:
        date = email.utils.parsedate_to_datetime(text) if _is_date(text) else None
        seconds = date.timestamp() - time.time() if date else -1.0
    return seconds if 0 <= seconds < float("inf") else None


def _is_date(text: str) -> bool:
    try:
        email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _one_line(text: str) -> str:
    """Return the beginning of what a server says, on one line."""
    line = " ".join(masked(text).split())[:_SHOWN]
    return line if line.isprintable() else ascii(line)


def listed_models(body: bytes) -> tuple[str, ...]:
    """Return the names in a list of models; none where it is no list."""
    try:
        listed = _table(body).get("data")
    except Lost:
        return ()
    names = [entry.get("id") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return tuple(name for name in names if isinstance(name, str))


def model_entry(body: bytes, model: str) -> dict[str, Any]:
    """Return the facts about *model* in a list of models, less those of the moment; none where there are none."""
    try:
        listed = _table(body).get("data")
    except Lost:
        return {}
    facts: dict[str, Any] = {}
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and entry.get("id") == model:
            inner = entry.get("meta")  # llama.cpp's
            facts = {**entry, **(inner if isinstance(inner, dict) else {})}
    plain = {str(name)[:40]: fact for name, fact in facts.items() if isinstance(fact, str | int) and name != "created"}
    return {name: fact[:_SHOWN] if isinstance(fact, str) else fact for name, fact in list(plain.items())[:20]}
