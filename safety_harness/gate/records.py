"""The records that results.json and manifest.json both hold, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Certificate = Literal["tested", "untested", "unresolved"]


class Budgets(BaseModel):
    """What is enough on the search split, as counts: the oracle accepts a set of units that keeps all three.

    None, in a patch of an older version: what the settings of the day say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: int
    over_refusal_limit: int | None = None
    task_floor: int | None = None


class SearchFacts(Budgets):
    """What a search started from: its harmful questions, what student and teacher refuse of them, and its budgets."""

    questions: int
    refused_before: int
    refused_whole: int

    @property
    def budgets(self) -> Budgets:
        """The budgets alone."""
        return Budgets(**{name: getattr(self, name) for name in Budgets.model_fields})


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
    search: SearchFacts
    course: tuple[Step, ...] = ()

    @property
    def share(self) -> float:
        """Parameters moved, as a share of the student's, 0..1."""
        return self.parameters / self.total_parameters
