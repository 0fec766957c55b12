"""Turn a results.json of an older schema into one of today's.

Up to schema 2 the sentences of a report become records. This is the only place where a sentence of a report is read
back. The sentences here are those of old files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter

from safety_harness.gate.incidents import Incident, student_of
from safety_harness.gate.results import Outcome, RunResult

_INTERRUPTED = "the run was interrupted"
_NOT_WRITTEN = "the reports could not be written: "
_BROKEN_TEST = re.compile(
    r"(?P<test>.*?)(?: and (?P<further>\d+) more(?: of this student|, of (?P<students>.*?),))? "
    r"could not be measured(?:: (?P<cause>.*))?",
    re.DOTALL,
)
# What the correction over students added to the sentence of a defense that had passed, by the outcome after it.
_CORRECTED = {"fail": "; no improvement after Holm", "inconclusive": "; whether that is an improvement was not tested"}


def upgrade(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return *table*, which has the shape of a results.json but the sentences of an old one, as one of schema 3.

    The numbers of *table* may be changed in place.

    Raises:
        ValidationError: its reasons are no sentences.
    """
    reasons = TypeAdapter(list[str]).validate_python(table.get("reasons"))
    students = [_with_raw_outcome(student) for student in table["students"]]
    if table["schema"] == 1:  # its numbers held the ids of the flipped questions
        for check in (check for student in students for check in student["checks"].values()):
            check.get("numbers", {}).pop("flips", None)
    ids = [student["id"] for student in students]
    # These follow from the students themselves.
    about_students = ("no student was measured", *(f"{name}: " for name in ids))
    incidents = [_incident(reason, ids) for reason in reasons if not reason.startswith(about_students)]
    return {**table, "students": students, "incomplete": [asdict(incident) for incident in incidents]}


def with_known_reds(run: RunResult) -> RunResult:
    """Return *run* with today's outcome: up to schema 4, a run whose stated failures failed was called a pass."""
    known = run.outcome is Outcome.PASS and any(student.known_red for student in run.students)
    return replace(run, outcome=Outcome.KNOWN_RED) if known else run


def _with_raw_outcome(student: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *student* with the outcome that its defense had before the correction."""
    defense = student["checks"].get("defense")
    ending = defense and _CORRECTED.get(defense["outcome"])
    if not ending or not defense["summary"].endswith(ending):
        return student
    before = {**defense, "summary": defense["summary"].removesuffix(ending), "raw_outcome": "pass"}
    return {**student, "checks": {**student["checks"], "defense": before}}


def _incident(sentence: str, ids: Sequence[str]) -> Incident:
    """Return the incident that *sentence* reports of a run over the students *ids*."""
    if sentence == _INTERRUPTED:
        return Incident(kind="interrupted")
    if sentence.startswith(_NOT_WRITTEN):
        return Incident(kind="report_not_written", cause=sentence.removeprefix(_NOT_WRITTEN))
    broken = _BROKEN_TEST.fullmatch(sentence)
    if broken is None:
        return Incident(kind="other", cause=sentence)
    test, further, cause = broken["test"], int(broken["further"] or 0), broken["cause"] or ""
    owner = student_of(test, ids)
    owners = broken["students"].split(", ") if broken["students"] else [owner]
    if owner in owners and set(owners) <= set(ids):
        return Incident(kind="broken_test", tests=(test,), students=tuple(owners), cause=cause, unnamed=further)
    if set(owners) & set(ids):  # of students and of nobody: no incident of this schema is both
        return Incident(kind="other", cause=sentence)
    tests = tuple(dict.fromkeys((test, *owners)))  # a test that belongs to no student is its own owner
    return Incident(kind="broken_test", tests=tests, cause=cause, unnamed=max(0, further + 1 - len(tests)))
