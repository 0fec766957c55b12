"""Keep answers on disk, so that a killed run is resumed without asking anything twice.

Each answer is one line of JSON, appended and synced before the search goes on. A first line names the oracle and the
units by a hash. A line without its end is what a kill leaves behind: it is dropped. A file that cannot be read, or
that belongs to another oracle or other units, is refused and left untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import IO

from safety_harness.ddmin.errors import JournalError
from safety_harness.ddmin.types import Answer, Reply

if sys.platform != "win32":
    import fcntl

_FORMAT = "ddmin journal 1"
_MASK = re.compile("[0-9a-f]+")
# A hundred thousand answers about ten thousand units.
_MOST_BYTES = 256 << 20
_JSON_OF = {Answer.TRUE: True, Answer.FALSE: False, Answer.UNRESOLVED: None}
_ANSWER_OF: dict[object, Answer] = {value: answer for answer, value in _JSON_OF.items()}


class Journal:
    """An append-only file of answers. Sets are bit masks over the units' original positions.

    fingerprint: whatever identifies the oracle: its version, its inputs, its settings. Together with the `repr` of
    every unit it makes the key. A file with another key is refused.
    """

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: str, units: Sequence[object], *, scores: bool = False
    ) -> None:
        """Open or create the file, for answers or for scores, and read it.

        Raises JournalError if it cannot be used.
        """
        self.path = Path(path)
        self._scores = scores
        self._count = len(units)
        key = hashlib.sha256(json.dumps([fingerprint, *map(repr, units)]).encode()).hexdigest()
        format_ = f"{_FORMAT}, scores" if scores else _FORMAT
        self._head = json.dumps({"format": format_, "key": key}).encode() + b"\n"
        try:
            self._file: IO[bytes] = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be opened: {error.strerror}") from error
        except ValueError as error:  # a null byte in its name
            raise JournalError(f"the journal {str(self.path)!r} cannot be opened: {error}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):  # a pipe or device could be read for ever
                raise JournalError(f"the journal {self.path} cannot be opened: it is no file")
            self._lock()
            self.answers = list(self._read())
        except BaseException:
            self._file.close()
            raise

    def append(self, mask: int, answer: Reply) -> None:
        """Add an answer and wait until it is on disk. Raises JournalError if it cannot be written."""
        value = _JSON_OF[answer] if isinstance(answer, Answer) else answer
        self._write(json.dumps({"set": f"{mask:x}", "answer": value}).encode() + b"\n")

    def close(self) -> None:
        """Close the file. Another run may use it then."""
        self._file.close()

    def _lock(self) -> None:
        """Keep other runs out of the file; on Windows nothing does. Raises JournalError if another run has it."""
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise JournalError(f"the journal {self.path} is in use by another run") from error

    def _read(self) -> Iterator[tuple[int, Reply]]:
        """Yield the answers in the file, and cut off what a kill left behind. Raises JournalError, changing nothing."""
        self._file.seek(0)
        if os.fstat(self._file.fileno()).st_size > _MOST_BYTES:
            raise JournalError(f"the journal {self.path} has more than {_MOST_BYTES >> 20} MiB")
        content = self._file.read()
        if self._head.startswith(content):  # empty, or killed while it was begun
            self._file.truncate(0)
            self._write(self._head)
            return
        if not content.startswith(self._head):
            raise JournalError(
                f"{self.path} is not a journal of this oracle over these units; "
                "give another path, or remove the file if its answers are no longer wanted"
            )
        body = content[len(self._head) :]
        whole = body[: body.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=2):
            yield self._entry(line, number)
        if len(whole) < len(body):
            self._file.truncate(len(self._head) + len(whole))

    def _entry(self, line: bytes, number: int) -> tuple[int, Reply]:
        """Read one line: a mask and its answer. Raises JournalError, with the line's number."""
        try:
            entry = json.loads(line)
            if not _MASK.fullmatch(entry["set"]) or (mask := int(entry["set"], 16)) >> self._count:
                raise ValueError("a unit that there is not")
            return mask, self._reply(entry["answer"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise JournalError(f"line {number} of the journal {self.path} is damaged") from error

    def _reply(self, value: object) -> Reply:
        """Return the answer or score that a value of JSON stands for. Raises ValueError or KeyError for others."""
        if isinstance(value, float):  # a dictionary takes 1.0 for True
            if self._scores and isfinite(value):
                return value
            raise ValueError(value)
        if type(value) is int:  # nor 1
            raise ValueError(value)
        return _ANSWER_OF[value]

    def _write(self, line: bytes) -> None:
        """Append a line and wait until it is on disk. Raises JournalError; then the file holds whole lines only."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                self._file.truncate(size)  # the next line must not be written after half a line
                raise OSError(None, f"only {written} of {len(line)} bytes could be written")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(
                f"the journal {self.path} cannot be written: {error.strerror}; "
                "its earlier answers stay valid, so the run can be resumed once that is mended"
            ) from error
