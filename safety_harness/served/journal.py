"""Keep the answers of a run that is not finished, so that the next run does not ask for them again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from safety_harness.errors import HarnessError, SourceError
from safety_harness.files import append_line, cache_dir, sha256_text
from safety_harness.reading import MIB, Reader
from safety_harness.served.reply import Reply

# A server may serve another model by tomorrow. A run that is taken up again within a day goes on with its answers.
_HOURS_KEPT = 24
_READER = Reader(SourceError, at_most=256 * MIB)


@dataclass(frozen=True)
class _Entry:
    """One line: the digest of what was asked, the answer, and when it came, in seconds since 1970."""

    question: str
    when: float
    reply: Reply


_ENTRY = TypeAdapter(_Entry)


class Journal:
    """The answers so far to the questions of one student, by what decides them: server, model and settings.

    The file is for its owner alone: answers may be harmful.
    """

    def __init__(self, identity: Mapping[str, object]) -> None:
        self.file: Path = cache_dir() / "served" / f"{sha256_text(json.dumps(identity, sort_keys=True))[:24]}.jsonl"

    def read(self) -> dict[str, Reply]:
        """Return the answers, by the digest of what was asked. Lines that are damaged or old are left out."""
        if not self.file.exists():
            return {}
        try:
            lines = _READER.text(self.file).split("\n")
        except HarnessError:  # it is a cache
            return {}
        oldest = time.time() - 3600 * _HOURS_KEPT
        replies: dict[str, Reply] = {}
        for line in lines:
            try:
                entry = _ENTRY.validate_json(line)
            except ValidationError:  # cut short by a kill
                continue
            if oldest < entry.when <= time.time():
                replies[entry.question] = entry.reply
        return replies

    def add(self, digest: str, reply: Reply) -> None:
        """Write down the *reply* to what has this *digest*.

        Raises:
            HarnessError: the disk is full or may not be written to.
        """
        entry = _Entry(digest, time.time(), reply)
        append_line(self.file, json.dumps(asdict(entry)))

    def forget(self) -> None:
        """Remove the file: its run is finished, and the next one asks again."""
        self.file.unlink(missing_ok=True)
