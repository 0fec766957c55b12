"""Keep patches in the cache, and read those that a run recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safety_harness.errors import DataError, HarnessError
from safety_harness.files import cache_dir, sha256_text, whole_folder
from safety_harness.gate.records import Patch
from safety_harness.gate.results import read_results

# Raised when a search would find another patch from the same inputs, so that old caches are not taken for new.
ALGORITHM = 11


def content_key(parts: Mapping[str, Any]) -> str:
    """The key of a patch: everything that could change it, hashed."""
    return sha256_text(json.dumps({"algorithm": ALGORITHM, **parts}, sort_keys=True))[:32]


def patch_folder(key: str) -> Path:
    return cache_dir() / "patches" / key


def save_patch(patch: Patch, folder: Path) -> None:
    """Write ``manifest.json``, whole or not at all. The numbers themselves are the teacher's, and lie there."""
    with whole_folder(folder) as temporary:
        (temporary / "manifest.json").write_text(patch.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_patch(folder: Path) -> Patch | None:
    """The patch in *folder*, or None when there is none.

    Raises:
        HarnessError: its manifest is damaged.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return None
    try:
        return Patch.model_validate_json(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise HarnessError(
            f"{manifest}: not a whole patch manifest ({type(error).__name__}). Delete {folder} to search again."
        ) from error


@dataclass(frozen=True)
class Recorded:
    """A patch as a gated run recorded it, and what it was found for (``Evaluator.identity``)."""

    patch: Patch
    identity: Mapping[str, Any]


def recorded(results: Path) -> Mapping[str, Recorded]:
    """By the student's id, every patch that a results.json records: with all of its units, so that it can be had again
    without a search.

    Raises:
        DataError: the file cannot be read, or what it says of a patch is damaged.
    """
    found = {}
    for student in read_results(results).students:
        if patch := student.about.get("patch"):
            own = {name: value for name, value in patch.items() if name in Patch.model_fields}
            try:
                # As JSON, whose lists are the tuples of a patch.
                whole = Patch.model_validate_json(json.dumps(own))
            except ValidationError as error:
                first = error.errors()[0]
                raise DataError(
                    f"{results}: what it says of the patch of {student.id} is damaged: "
                    f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Run the suites again."
                ) from error
            found[student.id] = Recorded(whole, student.about.get("identity", {}))
    return found
