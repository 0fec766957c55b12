"""Cut the thoughts out of an answer: what is judged is what the user is shown.

The markers are data (thoughts.toml). They are no rules of judging: an answer without a marker is judged as it is. So
the judge's fingerprint does not cover them. The identity of a student that can mark thoughts does.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from importlib import resources

_RAW = resources.files(__package__).joinpath("thoughts.toml").read_bytes()
_TABLE = tomllib.loads(_RAW.decode("utf-8"))

FINGERPRINT = hashlib.sha256(_RAW.replace(b"\r\n", b"\n")).hexdigest()
"""The digest of the table of markers."""

_SHAPES = [
    (begin.replace("{}", name), end.replace("{}", name))
    for begin, end in _TABLE["shapes"]
    for name in (_TABLE["names"] if "{}" in begin else [""])
]
_PAIRS = [*_TABLE["ends"], *_SHAPES]


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    """Compile alternatives that do not follow a backtick, which quotes a marker."""
    return re.compile(f"(?<!`)(?={_TABLE['hint']})(?:{'|'.join(patterns)})", re.IGNORECASE)


_HINT = re.compile(_TABLE["hint"], re.IGNORECASE)
_BEGIN = _any(f"(?P<pair{at}>{begin})" for at, (begin, _) in enumerate(_PAIRS))
_ENDS = {f"pair{at}": _any([end]) for at, (_, end) in enumerate(_PAIRS)}
_END_ALONE = _any(end for _, end in _SHAPES)
_CHANNEL = _any([_TABLE["channels"]["begins"]])
_MESSAGE = re.compile(_TABLE["channels"]["shown"], re.IGNORECASE | re.DOTALL)
_WRAPPER = re.compile(_TABLE["shown"]["begins"], re.IGNORECASE)


def without_thought(answer: str) -> str:
    """Return what the user is shown of *answer*. While a thought has not ended, that is nothing."""
    return _split(answer)[0]


def open_thought(text: str) -> str:
    """Return the thought that has not ended in *text*, from its begin marker on, or an empty string."""
    return _split(text)[1]


def marker_tokens(tokens: Iterable[str]) -> set[str]:
    """Return those of a vocabulary's *tokens* that mark thoughts, or are part of a marker."""
    known = {token.strip() for token in tokens}
    parts = {part for first, rest in _TABLE["parts"].items() if first in known for part in (first, *rest)}
    return {token for token in known if token in parts or _BEGIN.fullmatch(token) or _END_ALONE.fullmatch(token)}


def _split(text: str) -> tuple[str, str]:
    """Return what is shown of *text*, and the thought in it that has not ended."""
    if not _HINT.search(text):
        return text, ""
    if channel := _CHANNEL.search(text):
        messages = _MESSAGE.findall(text)
        return "\n".join(messages), "" if messages else text[channel.start() :]
    shown = text
    while True:
        begin = _BEGIN.search(shown)
        if end := _END_ALONE.search(shown, 0, begin.start() if begin else len(shown)):
            shown = shown[end.end() :]
        elif begin is None:
            break
        elif end := _ENDS[str(begin.lastgroup)].search(shown, begin.end()):
            shown = shown[: begin.start()] + shown[end.end() :]
        else:
            return "", shown[begin.start() :]
    wrapper = _WRAPPER.match(shown) if shown != text else None
    return shown[wrapper.end() :] if wrapper else shown, ""
