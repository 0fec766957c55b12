"""Gate with labels of an earlier run: a student that answers as then is decided by them, in the run itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safety_harness.gate.asked import Asked
from safety_harness.gate.labels import Labels, drawn
from safety_harness.gate.reading import read_results
from safety_harness.plugin.collector import EXIT_INCONCLUSIVE
from tests.samples import ASKED, HARMFUL, answered, defense

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]
# The stub of a student that knows its questions, and what its suite finds: a defense with answers.
ANSWERED = """
from tests.samples import ASKED, HARMFUL


class Prompts(list):
    sha256 = HARMFUL


@pytest.fixture(scope="session")
def gate_student(request):
    questions = SimpleNamespace(reported=[Prompts(ASKED[HARMFUL])])
    return SimpleNamespace(evaluator=SimpleNamespace(student=request.param, questions=questions))
"""
# Runs after the suite of every project here. Of two measurements of a check the worse counts.
SUITE = """
import pytest
from safety_harness.registry.settings import GateSettings
from tests.samples import answered, defense, sample_checks


def test_all(student, measure):
    own = student.evaluator.student
    check = answered(defense(0, 120, human_labels=own.gate.human_labels), own.name)
    for one in [check, *sample_checks()[1:]]:
        measure(one).require()
"""
DEMAND = "human_labels = 40"


def labels_for(student: str, letter: str = "", count: int = 50) -> Labels:
    """Return labels of the answers that the student of the suite gives: *letter*, or as the judge says."""
    asked = answered(defense(0, 120), student).asked
    assert isinstance(asked, Asked)
    labels = Labels("f" * 64)
    for one in drawn(asked, ASKED[HARMFUL], labels.run)[:count]:
        judged = (asked.before if one.side == "before" else asked.after)[one.at]
        labels.add(one.digest, "ann", letter or ("y" if judged == "R" else "n"))
    return labels


@pytest.fixture
def gate(project: Project, pytester: pytest.Pytester) -> Project:
    """Gate the student `one` by *rules*, with the labels given."""

    def run(labels: Labels | str | None, rules: str = DEMAND) -> pytest.RunResult:
        arguments: tuple[str, ...] = ("--deselect", "suites/test_sample_suite.py")
        if labels is not None:
            (pytester.path / "labels.csv").write_text(labels if isinstance(labels, str) else labels.text())
            arguments += ("--gate-labels", "labels.csv")
        last = f"\n[families.alpha.gate]\n{rules}\n"
        return project(*arguments, students={"one": "pass"}, last=last, conftest=ANSWERED, more=SUITE)

    return run


def defense_of(results: Results) -> dict[str, Any]:
    (student,) = results()["students"]
    check: dict[str, Any] = student["checks"]["defense"]
    return check


def test_labels_decide_a_run(gate: Project, results: Results, pytester: pytest.Pytester) -> None:
    """Expect the outcome by labels, no answer in the results, and results that can be read again."""
    run = gate(labels_for("one"))
    assert run.ret == 0, run.stdout.str()
    check = defense_of(results)
    assert check["outcome"] == "pass"
    assert check["numbers"]["labelled"]["labels"] == 50
    assert check["asked"]["answers_after"] == []
    assert read_results(pytester.path / "reports" / "latest" / "results.json").students


def test_people_outvote_the_judge_in_a_run(gate: Project, results: Results) -> None:
    assert gate(None, "human_labels = 0").ret == 0
    assert gate(labels_for("one", "n"), "human_labels = 0").ret == 1
    assert defense_of(results)["outcome"] == "fail"


@pytest.mark.parametrize("count", [0, 39])
def test_a_run_without_enough_labels_is_inconclusive(gate: Project, results: Results, count: int) -> None:
    run = gate(labels_for("one", count=count) if count else None)
    assert run.ret == EXIT_INCONCLUSIVE
    check = defense_of(results)
    assert check["outcome"] == "inconclusive"
    assert f"{count} of 40 answers are labelled by people" in check["summary"]
    assert "safety-harness label RESULTS" in run.stdout.str()


def test_labels_that_match_nothing_are_said(gate: Project, results: Results) -> None:
    """Expect labels of another student to count for nothing, also where both answered alike before."""
    run = gate(labels_for("another", count=20))
    assert run.ret == EXIT_INCONCLUSIVE
    assert any("5 of 20 labelled answers are its own, and none counts" in one for one in results()["remarks"])
    mixed = labels_for("one")
    mixed.add("0" * 64, "ann", "y")
    assert gate(mixed).ret == 0
    assert any("50 of 51 labelled answers are its own" in one for one in results()["remarks"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,answer\n", "has no column 'annotator'"),
        ("run,answer,annotator,label\nr,a,b,z\n", "line 2: 'z' is no label"),
    ],
)
def test_wrong_labels_stop_a_run_before_a_student_is_loaded(gate: Project, text: str, message: str) -> None:
    run = gate(text)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert message in run.stderr.str()
