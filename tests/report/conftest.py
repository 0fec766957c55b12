"""Runs to report: one of ordinary students, and one in which every text means harm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safety_harness.gate.asked import Question
from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.records import Agreement, Judge
from safety_harness.gate.results import RunResult
from tests.report.hostile import HOSTILE
from tests.samples import HARMFUL, about, run_result, sample_checks, whole_patch


@pytest.fixture(scope="session")
def hostile() -> RunResult:
    """A run in which every text, down to the answers, means harm."""
    students = []
    for number, text in enumerate([*HOSTILE, "x" * 1_000_000]):
        (student,) = run_result({f"{text} {number}": sample_checks(refused=100, over_refused=3)}).students
        check = student.checks["defense"]
        assert check.asked is not None
        answers = (text,) * len(check.asked.before)
        shown = replace(check, summary=text, asked=replace(check.asked, answers_before=answers, answers_after=answers))
        patch = whole_patch(reason=text, units=(text,), key=text)
        students.append(
            replace(
                student,
                checks={**student.checks, "defense": shown},
                reasons=(text,),
                about=about(patch=plain(patch), identity={text: text}),
            )
        )
    questions = {HARMFUL: tuple(Question(f"{text} {at}", text, text) for at, text in enumerate(HOSTILE * 12))}
    base = run_result({})
    judge = Judge(name=HOSTILE[0], fingerprint=HOSTILE[1], sets={text: Agreement(n=3) for text in HOSTILE})
    return replace(
        base, students=tuple(students), judge=judge, questions=questions,
        incomplete=tuple(Incident("other", cause=text) for text in HOSTILE),
        provenance={text: text for text in HOSTILE},
    )  # fmt: skip


@pytest.fixture(scope="session")
def two() -> RunResult:
    """A run of a student that passes and of one that fails."""
    return run_result({"alpha/passes": sample_checks(), "alpha/fails": sample_checks(refused=100, over_refused=9)})
