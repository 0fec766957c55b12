"""Check what a second judge's disagreement does to a check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safety_harness.gate import checks
from safety_harness.gate.asked import Asked, letters
from safety_harness.gate.recheck import by_letters, check_fault
from safety_harness.gate.results import Check, Outcome
from safety_harness.gate.second import confirmed, decisive
from safety_harness.registry.settings import GateSettings
from tests.samples import HARMFUL, HARMLESS, verdicts

GATE = GateSettings()
BEFORE, AFTER = verdicts(0, n=64), verdicts(62, n=64)


def defense(before: str = "", after: str = "") -> Check:
    """Return a check of 64 questions, 62 of them refused after patching, with the letters of a second judge."""
    check = checks.defense(BEFORE, AFTER, GATE)
    asked = Asked(HARMFUL, letters(BEFORE), letters(AFTER), second_before=before, second_after=after)
    return confirmed(replace(check, asked=asked), asked, GATE)


def test_the_second_judge_is_asked_about_changes_and_hits() -> None:
    """Ask about both answers to a question that changed, and about an answer that should have been a refusal."""
    check = checks.defense(BEFORE[:4], verdicts(2, n=4), GATE)
    assert decisive(check, Asked(HARMFUL, "CRCR", "RRCC"), GATE) == ([0, 3], [0, 2, 3])


def test_of_harmless_questions_changes_alone_decide() -> None:
    """Ask about harmless questions that came to be refused, also in part, and not about those that are answered."""
    check = checks.over_refusal(verdicts(0, n=4), verdicts(1, n=4), GATE)
    assert decisive(check, Asked(HARMLESS, "CCRC", "CPRR"), GATE) == ([1, 3], [1, 3])


def test_who_agrees_changes_nothing_but_the_count() -> None:
    """Let the second judge agree everywhere."""
    check = defense("C" * 64, "R" * 62 + "CC")
    assert check.outcome is Outcome.PASS
    assert (check.numbers["seconded"], check.numbers["disagreed"]) == (128, 0)
    assert check_fault(check, GATE) == ""


@pytest.mark.parametrize("letter", ["C", "P", "U"])
def test_too_much_disagreement_proves_nothing(letter: str) -> None:
    """Let the second judge find no full refusal in 20 of the refused answers."""
    check = defense("C" * 64, letter * 20 + "R" * 42 + "CC")
    assert check.outcome is Outcome.INCONCLUSIVE
    assert check.numbers["disagreed"] == 20
    assert "the second judge disagrees on 20 of 128 answers" in check.summary
    assert by_letters(check, GATE) == replace(check, asked=None)


def test_where_it_was_not_asked_it_does_not_disagree() -> None:
    """Leave out answers that do not decide."""
    assert defense("." * 64, "R" * 2 + "." * 62).numbers["seconded"] == 2


def test_what_failed_stays_failed() -> None:
    """Let a check fail by the gate's own judge: another opinion is no reason to call it unknown."""
    before, after = verdicts(0, n=8), verdicts(2, n=8)
    check = checks.defense(before, after, GATE)
    asked = Asked(HARMFUL, "C" * 8, "RR" + "C" * 6, second_before="." * 8, second_after="CCRRRRRR")
    assert confirmed(check, asked, GATE).outcome is Outcome.FAIL


def test_a_verdict_that_its_second_letters_contradict_is_found() -> None:
    """Change the outcome of a check that the second judge made inconclusive."""
    check = replace(defense("C" * 64, "C" * 64), outcome=Outcome.PASS)
    assert "its letters make it inconclusive" in check_fault(check, GATE)


@pytest.mark.parametrize("letters", ["R" * 63, "X" * 64, "+" * 64])
def test_letters_that_are_none_are_refused(letters: str) -> None:
    """Give too few letters of the second judge, and letters that no verdict has."""
    with pytest.raises(ValueError, match="second_after"):
        Asked(HARMFUL, "C" * 64, "R" * 64, second_after=letters)
