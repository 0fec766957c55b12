"""Read files that others wrote: bounded in size, depth and numbers, with one error that names the file and the place.

Every reader of the package goes through a :class:`Reader`, so that no file ends a run with a traceback, holds it, or
fills the memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from safety_harness.errors import HarnessError

MIB = 1 << 20
# A list or an object takes 60 bytes of memory and more, and two in the file.
_MOST_CONTAINERS = 1_000_000
# That of pydantic's parser, which reads JSON first.
_DEEPEST = 200
# Tokenizers write 10^30 for "no limit". From 309 digits on no float holds a number, from 4301 on Python prints none.
_MOST_DIGITS = 100
_MOST_DOTS = 500
_LONG_NUMBER = re.compile(r"\b(?:0[xob])?(?:_?[0-9a-fA-F]){200,}")


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read, and what is said when it cannot be: an *error*, with an *advice* at its end.

    *missing* is said of a file that does not exist, and *no_json* of text that is not JSON.
    """

    error: type[HarnessError]
    missing: str = "cannot be read (it does not exist). Check the path."
    advice: str = "Get the file again."
    no_json: str = "not JSON"
    at_most: int = 16 * MIB

    def require(self, file: Path) -> int:
        """Return the size of *file*, which must be a file: a pipe or a device could be read for ever.

        Raises:
            HarnessError: it is missing, cannot be reached, or is no file.
        """
        about = self._about(file)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise self._unreadable(shown(file), f"it is {kind}, not a file")
        return about.st_size

    def require_folder(self, folder: Path) -> None:
        """Check that *folder* is one.

        Raises:
            HarnessError: it is missing, cannot be reached, or is no folder.
        """
        if not stat.S_ISDIR(self._about(folder).st_mode):
            raise self.error(f"{shown(folder)}: {self.missing}")

    def is_file(self, place: Path) -> bool:
        """Return whether *place* is a file; otherwise it is a folder.

        Raises:
            HarnessError: it is missing, cannot be reached, or is neither.
        """
        if stat.S_ISDIR(self._about(place).st_mode):
            return False
        self.require(place)
        return True

    def content(self, file: Path) -> bytes:
        """Return the bytes of *file*.

        Raises:
            HarnessError: it is no file, too large, or cannot be read.
        """
        size = self.require(file)
        try:
            with file.open("rb") as stream:
                data = stream.read(self.at_most + 1) if size <= self.at_most else b""
        except OSError as error:
            raise self._unreadable(shown(file), _why(error)) from error
        if max(size, len(data)) > self.at_most:
            raise self._unreadable(shown(file), f"it has more than {self.at_most / MIB:g} MiB")
        return data

    def text(self, file: Path) -> str:
        """Return the text of *file* without a byte order mark, which spreadsheets and editors write, and with ``\\n``.

        Raises:
            HarnessError: as :meth:`content`, or it is not UTF-8; the message names the byte.
        """
        try:
            text = self.content(file).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.error(f"{shown(file)}: not UTF-8 (byte {error.start}). Convert it to UTF-8.") from error
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def json(self, file: Path) -> Any:
        """Return the value of a JSON *file*.

        Raises:
            HarnessError: as :meth:`text` and :meth:`parse`.
        """
        return self.parse(self.text(file), shown(file))

    def table(self, file: Path) -> dict[str, Any]:
        """Return the object of a JSON *file*.

        Raises:
            HarnessError: as :meth:`json`, or the value is no object.
        """
        value = self.json(file)
        if not isinstance(value, dict):
            raise self.error(f"{shown(file)}: expected a JSON object. {self.advice}")
        return value

    def parse(self, text: str, place: str, *, finite: bool = True) -> Any:
        """Return the value of a JSON *text* that was found at *place*. NaN and Infinity may be in one not *finite*.

        Raises:
            HarnessError: it is not JSON, too large, nested too deep, holds a number that is not finite or is too long,
                or an object has a key twice. What a reader makes of the latter is chance.
        """
        try:
            if text.count("[") + text.count("{") > _MOST_CONTAINERS:
                raise ValueError(f"more than {_MOST_CONTAINERS} lists and objects")
            from_json(text)  # the standard parser has no limit of depth of its own
            return json.loads(
                text,
                object_pairs_hook=_once_each,
                parse_int=_short_int,
                parse_float=_finite,
                parse_constant=_refuse if finite else None,
            )
        except (ValueError, RecursionError) as error:
            raise self.error(f"{place}: {self.no_json} ({_why(error)}). {self.advice}") from error

    def toml(self, file: Path) -> dict[str, Any]:
        """Return the table of a TOML *file*.

        Raises:
            HarnessError: as :meth:`text`, or it is not TOML, is nested too deep or holds a number that is too long; the
                message names the line where there is one.
        """
        text = self.text(file)
        try:
            for number, line in enumerate(text.split("\n"), 1):
                # Its parser takes time with the square of the dots in a key.
                if line.count(".") > _MOST_DOTS or _LONG_NUMBER.search(line):
                    raise ValueError(f"a number of too many digits, or a key of too many parts (at line {number})")
            table = tomllib.loads(text)
            _check_depth(table)
        except (ValueError, RecursionError) as error:
            raise self.error(f"{shown(file)}: not valid TOML: {_why(error)}.") from error
        return table

    def _about(self, place: Path) -> os.stat_result:
        """Return what the system says of a place."""
        try:
            return place.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise self.error(f"{shown(place)}: {self.missing}") from None
        except (OSError, ValueError) as error:  # ValueError: a null byte in its name
            raise self._unreadable(shown(place), _why(error)) from error

    def _unreadable(self, place: str, why: str) -> HarnessError:
        return self.error(f"{place}: cannot be read ({why}). {self.advice}")


def shown(file: Path | str) -> str:
    """Return a name, as of a file, on one line."""
    name = str(file)[:5_000]
    return name if name.isprintable() else ascii(name)


def _why(error: BaseException) -> str:
    """Return the cause of *error* on one line."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    cause = str(error)
    if "surrogate" in cause or "hex escape" in cause:
        return f"it holds half of a character, a lone surrogate: {cause}"
    return " ".join(cause.split())[:300]


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the dictionary of a JSON object, none of whose keys may stand there twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} stands there twice")
    return table


def _short_int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _check_depth(value: Any, depth: int = 0) -> None:
    """Check that a *value* of TOML is nested no deeper than JSON may be."""
    if depth > _DEEPEST:
        raise RecursionError
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _check_depth(item, depth + 1)
