"""Hold what an explanation is made from, and what it says: a check that a student did not pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safety_harness.gate.records import Patch
from safety_harness.gate.results import Check, StudentResult
from safety_harness.registry.settings import GateSettings


@dataclass(frozen=True)
class Miss:
    """One check that a student did not pass. ``by`` is how much is missing, and ``advice`` what to change."""

    student: str
    check: str
    measured: str
    needed: str
    by: str
    advice: str

    def __str__(self) -> str:
        return f"{self.student}, {self.check}: {self.measured}; needed: {self.needed} ({self.by}). {self.advice}"


@dataclass(frozen=True)
class Case:
    """What an explanation is made from: a check of a student, its thresholds, and the settings of its search."""

    student: StudentResult
    check: Check
    gate: GateSettings
    search: Mapping[str, Any]

    @property
    def patch(self) -> Patch | None:
        """The patch that was gated; None where it was the student as it is, or no units moved."""
        patch = self.student.about.patch
        return patch if patch and patch.units else None

    def miss(self, measured: str, needed: str, by: str, advice: str) -> Miss:
        """Return the explanation of this check."""
        return Miss(self.student.id, self.check.name, measured, needed, by, advice)
