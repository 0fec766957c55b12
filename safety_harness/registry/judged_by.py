"""Say which judge a run has: that of its families, or the one that its command line names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safety_harness.errors import ConfigError
from safety_harness.registry.judges import RULES
from safety_harness.registry.load import Student
from safety_harness.registry.named import unknown


def judged_by(students: Sequence[Student], given: str) -> tuple[Student, ...]:
    """Return *students* with the judge, or the judges with commas between, that a command line names.

    Raises:
        ConfigError: a name is not that of a judge of their registry, or is that of the second judge too.
    """
    names = tuple(part.strip() for part in given.split(","))
    for student in students:
        known = [RULES, *student.family.judges]
        for name in names:
            if name not in known:
                raise ConfigError(unknown("judge", name, known))
        if student.family.second_judge in names:
            raise ConfigError(
                f"{student.family.second_judge!r} is the second judge of {student.family.name}, and cannot be the "
                "gate's own as well. Name another, or take `second_judge` out of the registry."
            )
    return tuple(replace(one, family=one.family.model_copy(update={"judge": names})) for one in students)


def require_one_judge(students: Sequence[Student]) -> None:
    """Check that all *students* have one judge: a run's rates are compared with each other.

    Raises:
        ConfigError: two families have others.
    """
    first, *others = students
    for student in others:
        if _judges(student) != _judges(first):
            raise ConfigError(
                f"{first.family.name} and {student.family.name} have different judges, and a run has one. Gate each by "
                "itself (--gate-family), or name one judge (--gate-judge)."
            )


def _judges(student: Student) -> tuple[object, ...]:
    family = student.family
    return family.judge, family.second_judge, family.models_that_judge
