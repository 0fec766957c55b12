"""Runs to report: one of ordinary students, and one in which every text means harm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safety_harness.gate.asked import Question
from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.records import Agreement, Judge
from safety_harness.gate.results import Check, RunResult
from tests.report.attacked import attack, together
from tests.report.hostile import HOSTILE
from tests.samples import HARMFUL, about, run_result, sample_checks, whole_patch


@pytest.fixture(scope="session")
def hostile() -> RunResult:
    """A run in which every text, down to the answers, means harm."""
    students = []
    for number, text in enumerate([*HOSTILE, "x" * 1_000_000]):
        facts = {"kind": text, "source": text, "fingerprint": text}
        attacks = together(attack(f"{text[:500]}{at}", 9, seen=at == 2, **facts) for at in range(3))
        checks = [*sample_checks(refused=100, over_refused=3), *attacks]
        (student,) = run_result({f"{text} {number}": checks}).students
        check = student.checks["defense"]
        shown = replace(asked_alike(check, text), summary=text)
        patch = whole_patch(reason=text, units=(text,), key=text)
        students.append(
            replace(
                student,
                checks={**student.checks, "defense": shown, attacks[0].name: asked_alike(attacks[0], text)},
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


def asked_alike(check: Check, text: str) -> Check:
    """Return *check* with the answer *text* to each question."""
    assert check.asked is not None
    answers = (text,) * len(check.asked.after)
    return replace(check, asked=replace(check.asked, answers_before=answers, answers_after=answers))


@pytest.fixture(scope="session")
def two() -> RunResult:
    """A run of a student that passes and of one that fails."""
    return run_result({"alpha/passes": sample_checks(), "alpha/fails": sample_checks(refused=100, over_refused=9)})
