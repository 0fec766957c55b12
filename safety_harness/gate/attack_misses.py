"""Explain why a student did not hold under attack: how many more answers must be safe, and which setting moves it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safety_harness.gate.misses import Case, Miss
from safety_harness.gate.numbers import Attack, Attacked
from safety_harness.gate.results import Outcome
from safety_harness.gate.room import refusals_needed
from safety_harness.registry.sources import ATTACK


def attack_miss(case: Case) -> Miss | None:
    """Return the explanation of one attack, or of all together; None where it decides nothing, or lacks its numbers."""
    numbers = case.check.numbers
    if isinstance(numbers, Attacked) and numbers.attacks == []:
        return _none_counts(case, numbers.set_aside or ())
    if not isinstance(numbers, Attack | Attacked) or not case.check.counts:
        return None
    if numbers.n is None or numbers.after is None:
        return None
    if case.check.outcome is Outcome.INCONCLUSIVE:
        return _unproven(case, numbers)
    n, safe, bar = numbers.n, numbers.after, case.gate.attacked_dsr
    needed = refusals_needed(n, case.gate.model_copy(update={"dsr": bar}))
    measured = f"{safe} of {n} questions safe under {_which(case)}"
    if needed > n:
        return case.miss(
            measured,
            f"a lower bound of {bar:.3f}, which {n} questions cannot show",
            "too few questions",
            "Hold out more harmful questions, or lower gate.attacked_dsr.",
        )
    if safe >= needed:
        return None
    return case.miss(
        measured, f"{needed} of {n}", f"{needed - safe} more", _more_safe(case, numbers.teacher, needed, n)
    )


def _none_counts(case: Case, set_aside: Sequence[str]) -> Miss:
    """Return the explanation of a gate that asked under attacks of which none counts."""
    named = f": {', '.join(set_aside)}" if set_aside else ""
    return case.miss(
        f"{len(set_aside)} attacks asked, and set aside{named}",
        "an attack that counts",
        "nothing is proven",
        "Name attacks in gate.attacks that the student can read, and that are not in search.attacks.",
    )


def _unproven(case: Case, numbers: Attack | Attacked) -> Miss:
    """Return the explanation of answers that prove nothing: too many are unscored, or two judges disagree."""
    n, unscored = numbers.n or 0, numbers.unscored_after or 0
    allowed = math.floor(case.gate.unscored * n)
    if unscored <= allowed:
        read = "Read the answers (--gate-include-answers)."
        return case.miss(case.check.summary, "answers that can be judged", "nothing could be shown", read)
    return case.miss(
        f"{unscored} of {n} answers under {_which(case)} could not be scored",
        f"at most {allowed}",
        f"{unscored - allowed} too many",
        "Read the answers (--gate-include-answers); raise gate.attack_tokens where they are cut off.",
    )


def _which(case: Case) -> str:
    """Return the name of the attack, or how many there are and which is the worst."""
    numbers = case.check.numbers
    if isinstance(numbers, Attacked) and len(numbers.attacks or ()) > 1:
        return f"each of {len(numbers.attacks or ())} attacks, of which {numbers.worst} is the worst"
    if isinstance(numbers, Attacked):
        return f"{numbers.worst}, the one attack that counts"
    return case.check.name.removeprefix(ATTACK)


def _more_safe(case: Case, teacher: int | None, needed: int, n: int) -> str:
    """Return how to make *needed* of *n* questions safe, of which with all of the teacher there are *teacher*."""
    if teacher is not None and teacher < needed:
        return (
            f"With all of the teacher {teacher} of {n} are safe, and a patch reaches hardly more. Take a teacher that "
            f"refuses under attack, or lower gate.attacked_dsr (now {case.gate.attacked_dsr:.3f})."
        )
    if case.patch is None:
        return "No units moved: gate it with a patch whose search asks under attacks (search.attacks)."
    kind = _kind(case)
    other = f"other attacks of the kind {kind}" if kind else "other attacks"
    known = case.search.get("attacks")
    if not isinstance(known, list | tuple) or not known:
        asked = "The search asked plainly."
        more = f"Name {other} in search.attacks"
    else:
        asked = f"The search asked a share of {case.search.get('attacked_share')} under {', '.join(map(str, known))}."
        more = f"Raise search.attacked_share, or name {other} in search.attacks"
    return f"{asked} {more}. Attacks that a search asks under do not count in the gate."


def _kind(case: Case) -> str:
    """Return the kind of the attack, or of the worst one."""
    numbers = case.check.numbers
    if isinstance(numbers, Attacked):
        worst = case.student.checks.get(f"{ATTACK}{numbers.worst}")
        numbers = worst.numbers if worst and isinstance(worst.numbers, Attack) else Attack()
    return (isinstance(numbers, Attack) and numbers.kind) or ""
