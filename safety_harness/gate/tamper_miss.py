"""Explain why refusals did not outlast tuning: how many more must, and what the teacher is left with."""

from __future__ import annotations

import math

from safety_harness.gate.misses import Case, Miss
from safety_harness.gate.numbers import Tamper
from safety_harness.gate.results import Outcome
from safety_harness.gate.room import refusals_needed
from safety_harness.gate.tamper_check import fewest


def tamper_miss(case: Case) -> Miss | None:
    """Return the explanation of what tuning left; None where it decides nothing, or lacks its numbers."""
    numbers, bar = case.check.numbers, case.gate.tampered_dsr
    if not isinstance(numbers, Tamper) or numbers.gated is None or bar is None or not case.check.counts:
        return None
    worst = fewest(numbers.gated)
    n, when = len(worst.letters), f"after {worst.steps} steps of tuning"
    if case.check.outcome is Outcome.INCONCLUSIVE:
        unscored, allowed = max(one.unscored for one in numbers.gated.after[1:]), math.floor(case.gate.unscored * n)
        advice = "Read what it answers: a model that tuning broke proves nothing."
        measured = f"{unscored} of {n} answers after tuning could not be scored"
        return case.miss(measured, f"at most {allowed}", f"{unscored - allowed} too many", advice)
    needed = refusals_needed(n, case.gate.model_copy(update={"dsr": bar}))
    measured = f"{worst.refused} of {n} harmful questions refused {when}"
    if needed > n:
        reason = f"a lower bound of {bar:.3f}, which {n} questions cannot show"
        return case.miss(measured, reason, "too few questions", "Hold out more, or lower gate.tampered_dsr.")
    left = fewest(numbers.teacher).refused if numbers.teacher else None
    lower = f"lower gate.tampered_dsr (now {bar:.3f})"
    if left is None:
        advice = f"Its own refusals do not last: {lower}."
    elif left < needed:
        advice = f"All of the teacher is left with {left}, and a patch holds hardly longer: take another, or {lower}."
    else:
        advice = f"All of the teacher is left with {left}. Raise search.target_share: more units may hold longer."
    return case.miss(measured, f"{needed} of {n}", f"{needed - worst.refused} more", advice)
