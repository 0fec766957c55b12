"""Check runs whose gate asks under attack: a test an attack and student, nothing missing, never wrongly green."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]
# Instead of a model's answers letters: all refused, but for attacks named weak*. Those named unread* do not apply.
SUITE = """
from dataclasses import replace
from safety_harness.gate import under_attack
from safety_harness.gate.asked import Asked
from safety_harness.gate.numbers import Attack


def asked_under(name, gate):
    after = "C" * 128 if name.startswith(("weak", "unread")) else "R" * 128
    read = 0 if name.startswith("unread") else 32
    asked = Asked("0" * 64, "C" * 128, after)
    told = Attack(controls=32, sensible_before=read, sensible_after=read, seen=False, fingerprint="f")
    return replace(under_attack.attack(f"attack.{name}", asked, told, gate), asked=asked)


def test_one(student, attack, measure):
    import pytest
    check = measure(asked_under(attack, student.evaluator.student.gate))
    if not check.counts:
        pytest.skip(check.summary)
    check.require()


def test_all(student, measure):
    gate = student.evaluator.student.gate
    if gate.attacks:
        checks = {f"attack.{name}": asked_under(name, gate) for name in gate.attacks}
        measure(under_attack.attacked(checks, gate)).require()
"""


def attacks(*names: str) -> dict[str, str]:
    """Return the parts of a project whose gate asks under attacks of these names, each a row of its registry."""
    rows = "".join(f'[attacks.{name}]\nkind = "kind-{name}"\nuser = "{name}: {{question}}"\n' for name in names)
    named = ", ".join(f'"{name}"' for name in names)
    return {"last": f"[families.alpha.gate]\nattacks = [{named}]\n{rows}", "more": SUITE}


def test_each_attack_is_a_test_of_each_student(project: Project, results: Results) -> None:
    """Run one test an attack and student, and pass."""
    run = project("-v", **attacks("polite", "blunt"))
    run.assert_outcomes(passed=2 * 3 + 2 * 2 + 2)
    for student in ("one", "two"):
        for name in ("polite", "blunt"):
            run.stdout.fnmatch_lines([f"*::test_one[[]alpha/{student}-{name}[]] PASSED*"])
    table = results()
    assert table["outcome"] == "pass"
    assert table["gate"]["alpha"]["gate"]["attacks"] == ["polite", "blunt"]
    assert table["students"][0]["checks"]["attacked"]["numbers"]["attacks"] == ["blunt", "polite"]


def test_the_worst_attack_fails_the_student(project: Project, results: Results) -> None:
    """Fail by the one attack that is not withstood, and name it."""
    run = project(**attacks("polite", "weak"))
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    (reason, *_) = results()["students"][0]["reasons"]
    assert "the worst is weak" in reason


def test_an_attack_that_does_not_apply_is_no_lost_evidence(project: Project, results: Results) -> None:
    """Skip its test with the reason, and decide by the others."""
    run = project("-rs", **attacks("polite", "unread"))
    assert run.ret == 0
    run.stdout.fnmatch_lines(["*unread: not applicable, 0 of 32*"])
    table = results()
    assert (table["outcome"], table["incomplete"]) == ("pass", [])
    assert table["students"][0]["checks"]["attack.unread"]["outcome"] == "not counted"


def test_nothing_is_proven_where_no_attack_applies(project: Project, results: Results) -> None:
    """Be inconclusive if all attacks are set aside."""
    project(**attacks("unread"))
    assert results()["outcome"] == "inconclusive"


@pytest.mark.parametrize("left_out", ["test_one and blunt", "test_one", "test_all"])
def test_an_attack_that_was_not_measured_proves_nothing(project: Project, results: Results, left_out: str) -> None:
    """Deselect one attack, each of them, or the check of all."""
    run = project("-k", f"not ({left_out})", **attacks("polite", "blunt"))
    assert run.ret != 0
    table = results()
    assert table["outcome"] == "inconclusive"
    assert "not measured: attack" in table["reasons"][0]


def test_a_gate_without_attacks_has_no_test_of_one(project: Project, results: Results) -> None:
    """Run as ever where no attack is named: no test is skipped, and none is missed."""
    run = project(more=SUITE)
    run.assert_outcomes(passed=2 * 3 + 2)
    assert results()["outcome"] == "pass"


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_kind_is_gated_as_its_attacks(project: Project, results: Results, workers: tuple[str, ...]) -> None:
    """Name a kind, here and in workers, and require each attack of it."""
    parts = attacks("polite")
    parts["last"] = parts["last"].replace('["polite"]', '["kind-polite"]')
    project(*workers, **parts)
    assert results()["gate"]["alpha"]["gate"]["attacks"] == ["polite"]


@pytest.mark.parametrize(("names", "words"), [
    ('"polit"', "There is no attack 'polit'. Did you mean 'polite'"),
    ('"polite", 3', "gate.attacks.1"),
])  # fmt: skip
def test_a_wrong_attack_is_one_line_before_anything_runs(project: Project, names: str, words: str) -> None:
    """Say what was meant."""
    parts = attacks("polite")
    parts["last"] = parts["last"].replace('["polite"]', f"[{names}]")
    run = project(**parts)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert words in run.stderr.str()


def test_the_tests_of_a_student_stand_together(project: Project) -> None:
    """Load each student once: pytest would go from student to student, attack by attack."""
    run = project("--collect-only", "-q", **attacks("polite", "blunt"))
    students = [found[1] for line in run.outlines if (found := re.search(r"::\w+\[alpha/(one|two)", line))]
    assert len(students) > 6
    assert [name for name, _ in itertools.groupby(students)] == ["one", "two"]


def test_samples_need_a_temperature(project: Project) -> None:
    """Refuse several draws of one greedy answer; the temperature may stand in the registry."""
    run = project("--gate-samples", "4", **attacks("polite"))
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "needs a `temperature` above 0" in run.stderr.str()
    parts = attacks("polite")
    parts["last"] = parts["last"].replace('["polite"]', '["polite"]\ntemperature = 0.7')
    assert project("--gate-samples", "4", "--collect-only", **parts).ret == pytest.ExitCode.OK
