"""A patch: which of the teacher's units go into a student, how they were found, and where it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from safety_harness.errors import DataError, HarnessError
from safety_harness.files import cache_dir, sha256_text, whole_folder
from safety_harness.gate.results import read_results

# Raised when a search would find another patch from the same inputs, so that old caches are not taken for new.
ALGORITHM = 11

Certificate = Literal["tested", "untested", "unresolved"]


class Step(BaseModel):
    """One probe of a search: how much was moved, and how many refused of so many that settled it.

    ``over_refused`` of the harmless questions were refused; None where they were not asked any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    asked: int
    refused: int
    over_refused: int | None
    accepted: bool


class Patch(BaseModel):
    """The outcome of one search; the manifest on disk is this, as JSON.

    ``units`` are the ids of what can be left out at once: units, or groups of them, joined by ``+``. They are none
    when no patch was needed or none was found; ``found`` and ``reason`` tell which.
    ``certificate`` says of each unit whether the oracle was seen to turn false without it. ``course`` are the probes in
    their order, but for void ones and those that an earlier, broken search had answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    student: str
    teacher: str
    found: bool
    reason: str
    units: tuple[str, ...]
    certificate: Mapping[str, Certificate]
    minimal: bool
    parameters: int
    total_parameters: int
    candidates: int
    probes: int
    seconds: float
    strategy: str
    prior: str
    grain: str
    together: str
    transfer: str
    search: Mapping[str, int]
    course: tuple[Step, ...] = ()

    @property
    def share(self) -> float:
        """Parameters moved, as a share of the student's, 0..1."""
        return self.parameters / self.total_parameters


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
