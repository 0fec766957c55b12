"""Remember how far a judge agreed with people, for the reports of every run that it judges."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from safety_harness.errors import HarnessError
from safety_harness.files import cache_dir, write_whole
from safety_harness.gate.records import Agreement
from safety_harness.reading import MIB, Reader

_READER = Reader(HarnessError, at_most=MIB)
_SETS = TypeAdapter(dict[str, Agreement])


def remember(fingerprint: str, name: str, agreement: Agreement) -> None:
    """Write down how a judge agreed with the labels of a set called *name*."""
    file = _file(fingerprint)
    sets = remembered(fingerprint) | {name: agreement}
    write_whole(file, json.dumps({key: one.model_dump(mode="json") for key, one in sets.items()}, indent=1) + "\n")


def remembered(fingerprint: str) -> dict[str, Agreement]:
    """Return how a judge agreed with labels that it was measured against on this machine; nothing if it never was."""
    file = _file(fingerprint)
    try:
        return _SETS.validate_json(_READER.text(file)) if file.exists() else {}
    except (HarnessError, ValidationError):  # it is a cache
        return {}


def _file(fingerprint: str) -> Path:
    return cache_dir() / "judges" / f"{fingerprint[:24]}.json"
