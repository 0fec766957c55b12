"""Cut the thoughts out of an answer: what is judged is what the user is shown.

The markers are data (thoughts.toml). They are no rules of judging: an answer without a marker is judged as it is. So
the judge's fingerprint does not cover them. A student's identity does.
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
_COMMON = re.compile(_TABLE["common"]["begins"], re.IGNORECASE)
_COMMON_END = re.compile(_TABLE["common"]["ends"], re.IGNORECASE)
# gpt-oss: ends a message, and begins the one that the user is shown.
_TO_THE_USER = "<|end|><|start|>assistant<|channel|>final<|message|>"


def without_thought(answer: str, *, marked: bool = True) -> str:
    """Return what the user is shown of *answer*. While a thought has not ended, that is nothing.

    Args:
        marked: whether the model is known to mark its thoughts. Of another model's answer, a server cuts only a thought
            between the common markers that the answer begins with. The user is shown all other markers.
    """
    if marked:
        return _split(answer)[0]
    if not (begin := _COMMON.match(answer)):
        return answer
    end = _COMMON_END.search(answer, begin.end())
    return answer[end.end() :] if end else ""


def open_thought(text: str) -> str:
    """Return the thought that has not ended in *text*, from its begin marker on, or an empty string."""
    return _split(text)[1]


def end_marker(thought: str) -> str:
    """Return the marker that ends *thought*, which starts with its begin marker, or an empty string."""
    if _CHANNEL.match(thought):
        return _TO_THE_USER
    for begin, end in _TABLE["shapes"]:
        if found := re.match(begin.replace("{}", f"(?P<name>{'|'.join(_TABLE['names'])})"), thought, re.IGNORECASE):
            marker = re.sub(r"\\(.)", r"\1", end).replace("{}", found.groupdict().get("name", ""))
            return marker.upper() if found[0].isupper() else marker
    return ""


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
    text = text.lstrip()
    pieces: list[str] = []
    at = 0
    while True:
        begin = _BEGIN.search(text, at)
        stop = begin.start() if begin else len(text)
        for end in _END_ALONE.finditer(text, at, stop):
            pieces, at = [], end.end()
        pieces.append(text[at:stop])
        if begin is None:
            break
        if not (end_of_pair := _ENDS[str(begin.lastgroup)].search(text, begin.end())):
            return "", text[stop:]
        at = end_of_pair.end()
    shown = "".join(pieces)
    wrapper = _WRAPPER.match(shown) if shown != text else None
    return shown[wrapper.end() :] if wrapper else shown, ""
