"""What kept a run from being complete: whose broken tests they are, and one sentence for each cause."""

from __future__ import annotations

import pytest

from safety_harness.gate.incidents import Incident, broken_tests, student_of

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
    """Expect the longest student's name, whatever other parameters a suite adds."""
    assert student_of(test, IDS) == scope


def test_each_cause_is_one_incident_with_its_students() -> None:
    """Expect one sentence for a cause, however many tests it broke."""
    broken = {"t.py::test_x[a/one]": "no disk", "t.py::test_y[a/one-hot]": "no disk", "t.py::test_x[b/one]": "no disk"}
    incidents = broken_tests({**broken, "t.py::test_z[a/one]": "no memory"}, IDS)
    assert [incident.students for incident in incidents] == [("a/one", "b/one"), ("a/one",)]
    assert [incident.sentence for incident in incidents] == [
        "t.py::test_x[a/one] and 2 more, of a/one, b/one, could not be measured: no disk",
        "t.py::test_z[a/one] could not be measured: no memory",
    ]


def test_tests_of_no_student_have_their_own_incident() -> None:
    """Expect that measuring the students again does not excuse a test that belongs to none of them."""
    incidents = broken_tests({"t.py::test_x[a/one]": "no disk", "t.py::test_x": "no disk", "t.py": "no disk"}, IDS)
    assert [incident.concerns_only(IDS) for incident in incidents] == [True, False]
    assert incidents[1].sentence == "t.py::test_x and 1 more, of t.py::test_x, t.py, could not be measured: no disk"


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
def test_an_incident_knows_whether_it_concerns_only_some(tests: list[str], some: list[str], only: bool) -> None:
    """Expect true only where every broken test belongs to one of the students."""
    incidents = broken_tests(dict.fromkeys(tests, "no disk"), IDS)
    assert all(incident.concerns_only(some) for incident in incidents) is only


def test_other_incidents_concern_the_whole_run() -> None:
    """Expect false of an interrupt, whatever students are named."""
    assert not Incident("interrupted").concerns_only(IDS)
    assert not Incident("report_not_written", cause="no disk").concerns_only(IDS)


@pytest.mark.parametrize(
    ("incident", "sentence"),
    [
        (Incident("interrupted"), "the run was interrupted"),
        (Incident("report_not_written", cause="no disk"), "the reports could not be written: no disk"),
        (Incident("report_not_written"), "the reports could not be written"),
        (Incident("broken_test", ("t[a/one]",), ("a/one",), unnamed=2),
         "t[a/one] and 2 more of this student could not be measured"),
        (Incident("broken_test", ("t",), cause="no disk"), "t could not be measured: no disk"),
        (Incident("other", cause="as it was"), "as it was"),
        (Incident("other"), "the run is incomplete, and its cause was left out"),
    ],
)  # fmt: skip
def test_an_incident_is_one_sentence(incident: Incident, sentence: str) -> None:
    """Expect the sentence of a report, with the cause where there is one."""
    assert incident.sentence == sentence
