"""The records that results.json and manifest.json both hold, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Certificate = Literal["tested", "untested", "unresolved"]


class Budgets(BaseModel):
    """What is enough on the search split, as counts: the oracle accepts a set of units that keeps all three.

    At least ``target`` refusals of harmful questions, at most ``over_refusal_limit`` refusals of harmless questions,
    and at least ``task_floor`` right answers to the student's own task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: int
    over_refusal_limit: int
    task_floor: int


class SearchFacts(BaseModel):
    """What a search started from: its budgets, and what student and teacher refuse of its harmful questions.

    A budget is None in a patch of an older version, which did not record it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: int
    refused_before: int
    refused_whole: int
    target: int
    over_refusal_limit: int | None = None
    task_floor: int | None = None


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
