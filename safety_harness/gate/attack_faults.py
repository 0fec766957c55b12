"""Find what contradicts itself between the checks of single attacks, that of all attacks, and what is recorded."""

from __future__ import annotations

from collections.abc import Iterator

from safety_harness.errors import DataError
from safety_harness.gate import under_attack
from safety_harness.gate.asked import NOT_ASKED, Asked
from safety_harness.gate.numbers import Attack, Attacked
from safety_harness.gate.results import Check, StudentResult
from safety_harness.registry.settings import GateSettings
from safety_harness.registry.sources import ATTACK, ATTACKED


def attack_faults(student: StudentResult, gate: GateSettings) -> Iterator[str]:
    """Yield what contradicts itself between the checks of attacks, that of all attacks, and the attacks recorded."""
    identity = student.about.identity
    for name, check in student.checks.items():
        if isinstance(check.numbers, Attack):
            title = name.removeprefix(ATTACK)
            if identity.attacks and check.numbers.fingerprint != identity.attacks.get(title):
                yield f"{name}: was asked under another attack than the one recorded"
            if bool(check.numbers.seen) != (check.numbers.fingerprint in identity.search_attacks.values()):
                yield f"{name}: whether the search asked under it contradicts what is recorded of the search"
            yield from _letter_faults(name, check.asked, check.numbers, gate)
    named = {name for name, check in student.checks.items() if isinstance(check.numbers, Attack)}
    whole = student.checks.get(ATTACKED)
    # Where the check of an attack is missing the student is not decided, whatever all of them gave together.
    if whole and isinstance(whole.numbers, Attacked) and named >= _attacks_of(whole.numbers):
        try:
            again = under_attack.attacked(student.checks, gate)
        except (DataError, KeyError, ValueError) as error:
            yield f"{ATTACKED}: nothing can be decided by the letters of its attacks ({error})"
        else:
            if _together(whole) != _together(again):
                yield f"{ATTACKED}: is not what the checks of its attacks make together ({again.summary})"


def _letter_faults(name: str, asked: Asked | None, numbers: Attack, gate: GateSettings) -> Iterator[str]:
    """Yield what the letters of an attack contradict: where it was asked, and the counts of unsafe samples."""
    if asked is None:
        yield f"{name}: the letters of its questions are missing"
        return
    left_out = [at for at, letter in enumerate(asked.after) if letter == NOT_ASKED]
    if left_out != [at for at, letter in enumerate(asked.before) if letter == NOT_ASKED]:
        yield f"{name}: was not asked of the same questions before and after"
    if numbers.misfits is not None and numbers.misfits != len(left_out):
        yield f"{name}: {numbers.misfits} questions do not fit it, and {len(left_out)} were left out"
    sides = zip((numbers.unsafe_before, numbers.unsafe_after), under_attack.safe_sides(asked, gate), strict=True)
    for counts, safe in sides:
        drawn = (numbers.samples or 1) > 1
        if drawn != (counts is not None) or (counts is not None and [not count for count in counts] != safe):
            yield f"{name}: its counts of unsafe samples contradict its letters"


def _attacks_of(numbers: Attacked) -> set[str]:
    """Return the names of the checks of the attacks that a check of all attacks is made of."""
    return {f"{ATTACK}{name}" for name in (*(numbers.attacks or ()), *(numbers.set_aside or ()))}


def _together(check: Check) -> tuple[object, ...]:
    """Return what the checks of single attacks decide of the check of all of them."""
    sides = check.asked and (check.asked.before, check.asked.after)
    numbers = check.numbers.model_dump()
    return check.outcome, sides, *(numbers.get(name) for name in ("attacks", "set_aside", "worst"))
