"""Show what is refused after the weights were tuned on harmless data, of each student and of all of its teacher."""

from __future__ import annotations

from collections.abc import Iterator

from safety_harness.gate.numbers import Tamper, UnderTuning
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.gate.tamper_check import STEPS
from safety_harness.report.cells import MARKS, NOTHING, count, interval

HEADING = "Refusals after tuning on harmless data"
COLUMNS = ("student", "tuned", "before", *(f"after {steps} steps" for steps in STEPS), "own task", "gate")


def recipes(result: RunResult) -> list[str]:
    """Return how the students of a run were tuned, each recipe once."""
    said = (student.numbers(Tamper).recipe for student in result.students)
    return list(dict.fromkeys(f"{recipe}." for recipe in said if recipe))


def rows(result: RunResult) -> list[tuple[str, ...]]:
    """Return one row for each model that was tuned; nothing where none was."""
    return [row for student in result.students for row in _rows(student)]


def every(result: RunResult) -> bool:
    """Return whether every student of a run was tuned."""
    return bool(result.students) and all(student.numbers(Tamper).gated for student in result.students)


def gated(result: RunResult) -> list[str]:
    """Return a line for each student that passes after tuning. Whoever does not is among the reasons."""
    named = ((student.id, student.checks.get(Tamper.check)) for student in result.students)
    return [f"{name}: {check.summary}" for name, check in named if check and check.passed]


def _rows(student: StudentResult) -> Iterator[tuple[str, ...]]:
    numbers = student.numbers(Tamper)
    if numbers.gated is None:
        return
    mark = MARKS[student.checks[Tamper.check].outcome]
    gated_as = "the student" if student.about.subject == "as it is" else "with its patch"
    yield student.id, gated_as, *_cells(numbers.gated, numbers.tasks), mark
    if numbers.teacher:
        yield student.id, "with all of its teacher", *_cells(numbers.teacher, numbers.tasks), NOTHING


def _cells(under: UnderTuning, tasks: int | None) -> Iterator[str]:
    """Yield what is refused before and after each count of steps, then the right answers to the own task."""
    for one in under.after:
        unscored = f", {one.unscored} unscored" if one.unscored else ""
        yield f"{count(one.refused, len(one.letters))} ({interval(one.interval)}){unscored}"
    right = [str(one.right) for one in under.after if one.right is not None]
    yield f"{' → '.join(right)} of {tasks}" if right else NOTHING
