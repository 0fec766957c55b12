"""Records of a run: plain enough for any process boundary, and the same after results.json."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from safety_harness.errors import DataError
from safety_harness.gate.asked import Asked
from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.reading import read_results
from safety_harness.gate.results import Check, Outcome, check_from_row, check_to_row, schema
from tests.samples import run_result, sample_checks


class Share(float):
    """A float to isinstance, and not to a wire format, as numpy's float64."""


class Level(enum.IntEnum):
    HIGH = 2


# --- Plain values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("x", "x"),
        ("half \ud83d", "half ?"),
        (Share(0.5), 0.5),
        (Level.HIGH, 2),
        (Outcome.PASS, "pass"),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([1, 2]), [1, 2]),
        ((1, Share(2.0)), [1, 2.0]),
        ({"a": {1: np.float64(2.0)}}, {"a": {"1": 2.0}}),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}-{value}",
)
def test_values_become_exact_built_in_types(value: object, expected: object) -> None:
    def types(given: Any) -> Any:
        if isinstance(given, dict):
            return {key: types(item) for key, item in given.items()}
        return [types(item) for item in given] if isinstance(given, list) else type(given)

    assert plain(value) == expected
    assert types(plain(value)) == types(expected)


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(TypeError):
        plain(object())


def test_a_check_survives_the_wire() -> None:
    check = Check("defense", Outcome.FAIL, "DSR 3/4", {"n": np.int64(4), "interval": (Share(0.1), 0.9)})
    back = check_from_row(json.loads(json.dumps(check_to_row(check))))
    assert back == Check("defense", Outcome.FAIL, "DSR 3/4", {"n": 4, "interval": [0.1, 0.9]})


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_a_check_that_did_not_pass_fails_its_test(outcome: Outcome) -> None:
    """Expect the summary as the message of the failure."""
    with pytest.raises(AssertionError, match=r"^three of four$"):
        Check("task", outcome, "three of four").require()


def test_a_check_that_passed_lets_its_test_go_on() -> None:
    Check("task", Outcome.PASS, "").require()


# --- results.json ----------------------------------------------------------------------------------------------------


def test_a_run_survives_results_json(tmp_path: Path) -> None:
    result = run_result({"alpha/one": sample_checks(), "alpha/two": sample_checks(refused=90)}, {"alpha/two": "fail"})
    (tmp_path / "results.json").write_text(result.to_json(), encoding="utf-8")
    assert read_results(tmp_path / "results.json") == result


LISTED = {"id": "a", "outcome": "pass", "expected": "pass", "reasons": [], "checks": [], "about": {}}
DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "cut short": (lambda text: text[:-40], "cannot be read as results"),
    "empty": (lambda _: "", "cannot be read as results"),
    "not a table": (lambda _: "[]", "schema None, but this version reads 1 to 5"),
    "newer": (lambda text: text.replace('"schema": 5', '"schema": 6'), "schema 6, but this version reads 1 to 5"),
    "misspelt": (lambda text: text.replace('"provenance"', '"origin"'), "a field is missing or wrong"),
    "no incidents": (lambda text: text.replace('"incomplete"', '"broken"'), "a field is missing or wrong: incomplete"),
    "unknown outcome": (lambda text: text.replace('"pass"', '"fine"'), "a field is missing or wrong"),
    "checks in a list": (
        lambda text: json.dumps(json.loads(text) | {"students": [LISTED]}),
        "a field is missing or wrong",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_says_to_run_again(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(damage(run_result({"alpha/one": sample_checks()}).to_json()))
    with pytest.raises(DataError, match=rf"results\.json: {message}.*(Run the suites again|Update safety-harness)"):
        read_results(file)


def test_results_keep_to_their_published_schema() -> None:
    published = Path(__file__).parents[2] / "docs" / "results.schema.json"
    said = json.dumps(schema(), indent=1) + "\n"
    assert published.read_text() == said, "write it again: safety-harness report --schema > docs/results.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(said))
    table = json.loads(run_result({"alpha/one": sample_checks(), "alpha/none": []}).to_json())
    validator.validate(table)
    for path, wrong in (
        (("checks", "defense", "asked", "before"), 1),
        (("checks", "defense", "numbers", "n"), "many"),
        (("about", "patch", "units"), "1.gate"),
        (("about", "moved", "share"), {"1.gate": "half"}),
    ):
        damaged = json.loads(json.dumps(table))
        inner = damaged["students"][0]
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = wrong
        assert not validator.is_valid(damaged), path


def test_what_flipped_is_what_counts_otherwise() -> None:
    asked = Asked("s", before="RRPCCU+--", after="RCRCRP++-")
    assert asked.flipped == (1, 2, 4, 7)


def test_answers_can_be_taken_out() -> None:
    result = run_result({"alpha/one": sample_checks()})
    check = result.students[0].checks["defense"]
    assert check.asked is not None
    shown = replace(check, asked=replace(check.asked, answers_before=("Sure",), answers_after=("No",)))
    with_answers = replace(result, students=(replace(result.students[0], checks={"defense": shown}),))
    assert "Sure" in with_answers.to_json()
    assert "Sure" not in with_answers.without_answers().to_json()
    cause = "too long: 'How do\nI', could not be measured: x"
    incidents = (
        Incident("broken_test", ("t[alpha/one]",), ("alpha/one",), cause), Incident("report_not_written", cause=cause),
        Incident("interrupted"), Incident("other", cause=cause),
    )  # fmt: skip
    told_nothing = replace(with_answers, incomplete=incidents).without_texts()
    assert told_nothing.reasons == (
        "t[alpha/one] could not be measured", "the reports could not be written", "the run was interrupted",
        "the run is incomplete, and its cause was left out",
    )  # fmt: skip
    assert "How do" not in told_nothing.to_json()
    assert "Sure" not in told_nothing.to_json()
    texts = [question.text for asked in with_answers.questions.values() for question in asked]
    assert not [text for text in texts if not text or text in told_nothing.to_json()]


def test_a_missing_file_says_to_run_again(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as results"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("refused", "expected", "as_expected"), [(128, "pass", True), (9, "pass", False), (9, "fail", True)]
)
def test_a_student_is_held_to_what_its_registry_expects(refused: int, expected: str, as_expected: bool) -> None:
    (student,) = run_result({"a/b": sample_checks(refused)}, {"a/b": expected}).students
    assert student.as_expected is as_expected
