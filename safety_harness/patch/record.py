"""Keep the patches that searches found in the cache, and read those that a run recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safety_harness.errors import HarnessError, first_fault
from safety_harness.files import cache_dir, sha256_text, whole_folder
from safety_harness.gate.reading import read_results
from safety_harness.gate.records import Patch
from safety_harness.reading import MIB, Reader

# Raised when a search would find another patch from the same inputs: patches of an older search are then not reused.
ALGORITHM = 11
FILE = "patch.json"
# The name of FILE in caches of older versions; an artifact's manifest.json is another format.
OLD_FILE = "manifest.json"

fetchers: list[Callable[[Path], None]] = []
"""Called with a patch's folder before a search looks into it: they bring what another machine's cache holds."""


def content_key(parts: Mapping[str, Any]) -> str:
    """Return the key of a patch in the cache: a hash of *parts*, which are everything that could change the patch."""
    return sha256_text(json.dumps({"algorithm": ALGORITHM, **parts}, sort_keys=True))[:32]


def patch_folder(key: str) -> Path:
    """Return the folder of the cache that holds the patch of this *key*, or will hold it."""
    return cache_dir() / "patches" / key


def save_patch(patch: Patch, folder: Path) -> None:
    """Write ``patch.json`` to *folder*, whole or not at all. The numbers that it moves stay in the teacher's files.

    Raises:
        HarnessError: the disk is full or may not be written to.
    """
    with whole_folder(folder) as temporary:
        (temporary / FILE).write_text(patch.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_patch(folder: Path) -> Patch | None:
    """Return the patch in *folder*, or None when the folder holds none.

    Raises:
        HarnessError: the file of the patch is damaged.
    """
    file = folder / FILE
    if not file.exists():
        file = folder / OLD_FILE
    if not file.exists():
        return None
    advice = f"Delete {folder} to search again."
    table = Reader(HarnessError, advice=advice, no_json="not a whole patch", at_most=64 * MIB).json(file)
    try:
        return Patch.model_validate(table)
    except ValidationError as error:
        raise HarnessError(f"{file}: not a whole patch ({first_fault(error)}). {advice}") from error


@dataclass(frozen=True)
class Recorded:
    """A patch as a gated run recorded it, and what it was found for (``Evaluator.identity``)."""

    patch: Patch
    identity: Mapping[str, Any]


def recorded(results: Path) -> Mapping[str, Recorded]:
    """Return every patch that a results.json records, by its student's id.

    Each patch comes with all of its units, so that it can be rebuilt without a search.

    Raises:
        DataError: the file cannot be read, or the record of a patch is damaged.
    """
    return {
        student.id: Recorded(patch, student.about.identity.model_dump())
        for student in read_results(results).students
        if (patch := student.about.patch)
    }
