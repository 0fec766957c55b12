"""Whatever is measured survives the wire and the disk, in exact built-in types."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.records import About, Agreement, Judge
from safety_harness.gate.results import Check, Outcome, RunResult, StudentResult, run_from_table
from safety_harness.report import markdown, terminal

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BUILT_IN = st.none() | st.booleans() | st.integers() | FINITE | TEXT
NUMPY = (
    st.booleans().map(np.bool_)
    | st.integers(-(2**63), 2**63 - 1).map(np.int64)
    | FINITE.map(np.float64)
    | st.floats(width=32, allow_nan=False).map(np.float32)
    | st.lists(FINITE, max_size=3).map(np.array)
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
    )


def exact(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and exact(item) for key, item in value.items())
    if type(value) is list:
        return all(map(exact, value))
    return value is None or type(value) in (bool, int, float, str)


@given(value=nested(BUILT_IN | NUMPY))
def test_only_exact_built_in_types_are_left(value: Any) -> None:
    assert exact(plain(value))


@given(value=nested(BUILT_IN))
def test_plain_values_stay_as_they_are_through_json(value: Any) -> None:
    assert plain(value) == value
    assert json.loads(json.dumps(plain(value))) == value


OUTCOMES = st.sampled_from([Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE])
TABLES = st.dictionaries(TEXT, nested(BUILT_IN), max_size=3)
CHECKS = st.lists(st.builds(Check, st.sampled_from(["a", "b"]), OUTCOMES, TEXT, TABLES), max_size=2)
STUDENTS = st.builds(
    StudentResult,
    TEXT,
    OUTCOMES,
    st.sampled_from(["pass", "fail"]),
    st.lists(TEXT, max_size=2).map(tuple),
    CHECKS.map(lambda checks: {check.name: check for check in checks}),
    TABLES.map(lambda facts: About.model_validate({"facts": facts})),
)
RULES = st.dictionaries(
    TEXT, st.dictionaries(TEXT, st.dictionaries(TEXT, BUILT_IN, max_size=2), max_size=2), max_size=2
)
NAMES = st.lists(TEXT, max_size=2).map(tuple)
KINDS: st.SearchStrategy[Any] = st.sampled_from(["broken_test", "interrupted", "report_not_written", "other"])
INCIDENTS = st.lists(st.builds(Incident, KINDS, NAMES, NAMES, TEXT), max_size=2).map(tuple)
AGREEMENTS = st.builds(Agreement, n=st.none() | st.integers(0), kappa=st.none() | FINITE)
JUDGES = st.builds(Judge, name=TEXT, fingerprint=TEXT, sets=st.dictionaries(TEXT, AGREEMENTS, max_size=2))
RUNS = st.builds(
    RunResult, OUTCOMES, st.lists(STUDENTS, max_size=2).map(tuple), RULES, JUDGES, TABLES, incomplete=INCIDENTS
)


@given(run=RUNS)
def test_any_run_survives_results_json(run: RunResult) -> None:
    """Expect every record as it was, also of runs that contradict themselves."""
    again = run_from_table(json.loads(run.to_json()))
    assert (again, again.sha256) == (run, run.sha256)


@given(run=RUNS)
def test_any_run_can_be_reported_without_control_characters(run: RunResult) -> None:
    """Expect printable lines alone, and no markup, whatever was measured."""
    for text in (markdown(run), terminal(run)):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "<" not in markdown(run)
