"""Tests that broke: whose they are, and a line a cause from which that can be read."""

from __future__ import annotations

import pytest

from safety_harness.gate.broken_tests import only_of, student_of, told

IDS = ("a/one", "a/one-more", "b/one")


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("suites/t.py::test_x[a/one]", "a/one"),
        ("suites/t.py::TestX::test_x[b/one]", "b/one"),
        ("suites/t.py::test_x[a/one-more]", "a/one-more"),
        ("suites/t.py::test_x[a/one-3]", "a/one"),
        ("suites/t.py::test_x[hot-a/one-more-3]", "a/one-more"),
        ("suites/t.py::test_x[3]", "suites/t.py::test_x[3]"),
        ("suites/t.py::test_x", "suites/t.py::test_x"),
    ],
)
def test_a_test_belongs_to_the_student_in_its_brackets(test: str, scope: str) -> None:
    assert student_of(test, IDS) == scope


def test_a_cause_is_told_once_with_whose_tests_it_broke() -> None:
    broken = {"t.py::test_x[a/one]": "no disk", "t.py::test_y[a/one-hot]": "no disk", "t.py::test_x[b/one]": "no disk"}
    assert told({**broken, "t.py::test_z[a/one]": "no memory"}, IDS) == [
        "t.py::test_x[a/one] and 2 more, of a/one, b/one, could not be measured: no disk",
        "t.py::test_z[a/one] could not be measured: no memory",
    ]


@pytest.mark.parametrize(
    ("tests", "some", "only"),
    [
        (["test_x[a/one]"], ["a/one"], True),
        (["test_x[a/one-hot]"], ["a/one"], True),
        (["test_x[a/one-more]"], ["a/one"], False),
        (["test_x[a/one]", "test_y[a/one]"], ["a/one"], True),
        (["test_x[a/one]", "test_x[b/one]"], ["a/one"], False),
        (["test_x[a/one]", "test_x[b/one]"], ["a/one", "b/one"], True),
        (["test_x[a/one]", "test_x"], ["a/one", "b/one"], False),
        (["test_x"], ["a/one"], False),
    ],
)
@pytest.mark.parametrize("cause", ["it could not be measured: no disk", "[a/one] and 2 more of this student", ""])
def test_a_line_says_whose_tests_it_tells_of(tests: list[str], some: list[str], only: bool, cause: str) -> None:
    [line] = told(dict.fromkeys(tests, cause), IDS)
    assert only_of(line, some, IDS) is only


def test_other_reasons_tell_of_no_test() -> None:
    assert not only_of("the run was interrupted", IDS, IDS)
    assert not only_of("t.py::test_x[a/one] and 3 more could not be measured: of whom is not said", IDS, IDS)
