"""Tests that broke, beside what the gate decides: told in one line a cause, and read from that line again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

UNMEASURED = "could not be measured"
_LINE = re.compile(rf"(?P<test>.*?)(?: and \d+ more(?: of this student|, of (?P<whose>.*?),))? {UNMEASURED}(?::|$)")


def student_of(nodeid: str, students: Sequence[str]) -> str:
    """The student that a test's brackets name, or the test itself: what must stay on one worker.

    A suite may have parameters of its own: ``test_x[alpha/one-hot]`` is alpha/one's.
    """
    _, _, parameters = nodeid.partition("[")
    named = [name for name in students if f"-{name}-" in f"-{parameters.removesuffix(']')}-"]
    return max(named, key=len, default=nodeid)


def told(broken: Mapping[str, str], students: Sequence[str]) -> list[str]:
    """One line a cause, of tests and why each broke: one teacher that cannot be loaded fails all of its students'."""
    tests: dict[str, list[str]] = {}
    for test, cause in broken.items():
        tests.setdefault(cause, []).append(test)
    return [f"{names[0]}{_others(names, students)} {UNMEASURED}: {cause}" for cause, names in tests.items()]


def _others(tests: Sequence[str], students: Sequence[str]) -> str:
    if len(tests) == 1:
        return ""
    whose = dict.fromkeys(student_of(test, students) for test in tests)
    return f" and {len(tests) - 1} more" + (" of this student" if len(whose) == 1 else f", of {', '.join(whose)},")


def only_of(line: str, some: Collection[str], students: Sequence[str]) -> bool:
    """Whether *line* tells of broken tests, and of none but those of *some* of a run's *students*."""
    found = _LINE.match(line)
    if found is None:
        return False
    first = student_of(found["test"], students)
    whose = found["whose"].split(", ") if found["whose"] else [first]
    return first in whose and set(whose) <= set(some)
