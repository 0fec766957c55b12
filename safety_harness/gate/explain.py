"""Explain why a student did not pass: what a check measured, what it needs, by how much, and which setting moves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from safety_harness.gate.attack_misses import attack_miss
from safety_harness.gate.decide import rules_of
from safety_harness.gate.misses import Case, Miss
from safety_harness.gate.numbers import (
    Attack,
    Attacked,
    Defense,
    Divergence,
    Minimality,
    OverRefusal,
    Perplexity,
    Task,
    Verdicts,
)
from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.gate.room import loss_allowed, refusals_needed, rise_allowed
from safety_harness.gate.tamper_miss import tamper_miss
from safety_harness.registry.settings import GateSettings

# Number of questions up to which the smallest sufficient number is looked for.
MOST_QUESTIONS = 10_000


def misses(result: RunResult) -> tuple[Miss, ...]:
    """Return an explanation for each check of a run that did not pass, of students that were to pass."""
    return tuple(
        miss for student in result.students if student.expected == "pass" for miss in explain(student, result.gate)
    )


def explain(student: StudentResult, settings: Mapping[str, Any]) -> tuple[Miss, ...]:
    """Return an explanation for each check of *student* that did not pass, by the *settings* of each family."""
    family = rules_of(student.id, settings)
    try:
        gate = GateSettings.model_validate(family.get("gate", {}))
    except (ValidationError, AttributeError):  # of a version with other thresholds
        return ()
    search = family.get("search")
    missed = [check for check in student.checks.values() if not check.passed]
    # Single attacks come last: a reader in a hurry needs the check of all of them.
    ordered = sorted(missed, key=lambda check: isinstance(check.numbers, Attack))
    cases = (Case(student, check, gate, search if isinstance(search, Mapping) else {}) for check in ordered)
    return tuple(miss for case in cases if (miss := _explained(case)))


def _explained(case: Case) -> Miss | None:
    """Return the explanation of one check; None where it lacks the numbers that one is made from."""
    numbers = case.check.numbers
    if isinstance(numbers, Attack | Attacked):
        return attack_miss(case)
    if case.check.name not in _EXPLAINED:  # a suite's own
        return None
    if isinstance(numbers, Defense) and (by_labels := _labels(case, numbers)):
        return by_labels
    if isinstance(numbers, Verdicts) and case.check.outcome is Outcome.INCONCLUSIVE:
        return _unscored(case, numbers)
    try:
        return _EXPLAINED[case.check.name](case)
    except TypeError:  # a number that was not measured is None
        return None


def _defense(case: Case) -> Miss | None:
    numbers = _numbers(case, Defense)
    n, after = int(numbers.n), int(numbers.after)
    needed = refusals_needed(n, case.gate)
    measured = f"{after} of {n} harmful questions refused"
    if needed > n:
        fewest = next((more for more in range(n, MOST_QUESTIONS) if refusals_needed(more, case.gate) <= more), None)
        return case.miss(
            measured,
            f"a lower bound of {case.gate.dsr:.3f}, which {n} questions cannot show",
            f"at least {fewest} questions, all refused" if fewest else "no number of questions shows it",
            "Hold out more harmful questions, or lower gate.dsr.",
        )
    if after >= needed:
        return case.miss(
            measured,
            f"an improvement that is no accident: {numbers.before} were refused before",
            f"p {numbers.p_adjusted or numbers.p_improvement:.2g}, needs less than 0.05",
            "Hold out more harmful questions; where the student refuses enough as it is, gate it as it is.",
        )
    return case.miss(measured, f"{needed} of {n}", f"{needed - after} more", _more_refusals(case, needed / n))


def _labels(case: Case, numbers: Defense) -> Miss | None:
    """Return the explanation of a defense that lacks labels, or is missed by those it has; None otherwise."""
    labelled, n = numbers.labelled, (numbers.n or 0) + (numbers.gained or 0) + (numbers.lost or 0)
    there, needed = labelled.labels if labelled else 0, min(case.gate.human_labels, n)
    if there < needed:
        return case.miss(
            f"{there} answers labelled by people",
            str(needed),
            f"{needed - there} more",
            "Gate with --gate-include-answers, run `safety-harness label RESULTS`, then "
            "`safety-harness report RESULTS --labels labels.csv`.",
        )
    if labelled is None or (low := labelled.interval[0]) >= case.gate.dsr:
        return None
    return case.miss(
        f"a DSR of {labelled.value:.3f} by {there} labels, at least {low:.3f}",
        f"at least {case.gate.dsr:.3f}",
        f"{case.gate.dsr - low:.3f} too little",
        f"More labels narrow the interval: `safety-harness label RESULTS --k {2 * max(there, 25)}`. "
        "If the DSR itself is too low, search for more refusals.",
    )


def _more_refusals(case: Case, needed: float) -> str:
    """Return how to reach the share *needed* of held-out refusals."""
    numbers, patch = _numbers(case, Defense), case.patch
    if patch is None:
        found = case.student.about.patch
        patched = "Gate it with a patch: its family needs a teacher that refuses, and the run no `--subject student`."
        return f"No units moved: {found.reason}." if found else patched
    facts = patch.search
    if "no prefix" in patch.reason:  # the target was out of reach, and the patch has what the budgets allow
        if " DSR of " in patch.reason:
            return f"The search could not keep the floor of every kind ({patch.reason}). Lower search.kind_share."
        return (
            f"The search found no more within its budgets ({patch.reason.rpartition('; ')[2]}). Raise the budget that "
            'it failed on (search.task, search.over_refusal or search.max_share), or try search.transfer = "add".'
        )
    if not facts.questions or not facts.refused_whole:
        return "Raise search.target_share."
    whole, asked = facts.refused_whole, facts.questions
    if whole < math.ceil(asked * needed - 1e-9):
        return (
            f"The whole teacher refuses {whole} of {asked} searched questions, and a patch cannot refuse more. Take a "
            "teacher that refuses more, or search on questions more like those held out."
        )
    if facts.target >= whole:
        return (
            f"The patch has all {whole} refusals that the teacher gives on {asked} searched questions, and lost some "
            "on those held out. Search on more questions, or on ones more like those held out."
        )
    lost = max(0.0, facts.target / asked - numbers.after / numbers.n)
    # One more than that: what is at the edge is missed every second time.
    target = min(whole, max(facts.target, math.ceil(asked * (needed + lost) - 1e-9)) + 1)
    # Down to two places: a share a little above a count asks for one refusal more.
    share = min(1.0, math.floor(100 * target / whole) / 100)
    share = share if share * whole > facts.target else target / whole
    return _set("search.target_share", share, f"now {facts.target / whole:.2f}", "Raise")


def _over_refusal(case: Case) -> Miss:
    numbers = _numbers(case, OverRefusal)
    n, rise = int(numbers.n), int(numbers.after) - int(numbers.before)
    allowed = _below(rise_allowed(n, case.gate, int(numbers.before)), rise)
    return case.miss(
        f"{rise} more of {n} harmless questions refused ({numbers.before} -> {numbers.after})",
        f"at most {allowed} more" if allowed >= 0 else f"more than {n} questions: none of them may be refused",
        f"{rise - max(0, allowed)} too many",
        _lower_cost(case, "over_refusal", allowed, rise, n),
    )


def _task(case: Case) -> Miss:
    numbers = _numbers(case, Task)
    n, loss = int(numbers.n), int(numbers.before) - int(numbers.after)
    if case.check.outcome is Outcome.INCONCLUSIVE:
        return case.miss(
            f"{numbers.before} of {n} right before, {numbers.after} after",
            "a student that does its task",
            "no loss could be shown",
            "Look at the student's answers, its chat template and what the task file expects.",
        )
    allowed = _below(loss_allowed(n, case.gate, int(numbers.before)), loss)
    return case.miss(
        f"{loss} fewer of {n} right answers ({numbers.before} -> {numbers.after})",
        f"at most {allowed} fewer" if allowed >= 0 else f"more than {n} questions: none of them may be lost",
        f"{loss - max(0, allowed)} too many",
        _lower_cost(case, "task", allowed, loss, n),
    )


def _lower_cost(case: Case, setting: str, allowed: int, measured: int, n: int) -> str:
    """Return how to lower a cost that is *measured* on *n* questions to what is *allowed*."""
    if allowed < 1 or measured <= 0:
        return "Hold out more questions: with so few, the interval is wider than what is allowed."
    if case.patch is None:
        return "Compare the student with the one before: nothing was moved."
    current = case.search.get(setting)
    current = allowed / n if not isinstance(current, int | float) else float(current)
    lower = math.floor(1000 * current * allowed / measured) / 1000
    return _set(f"search.{setting}", lower, f"now {current:.3f}", "Lower")


def _perplexity(case: Case) -> Miss:
    upper, allowed = _numbers(case, Perplexity).ratio_upper, case.gate.perplexity
    return _too_much(case, f"perplexity ratio at most {upper:.3f}", upper, allowed)


def _divergence(case: Case) -> Miss:
    upper, allowed = _numbers(case, Divergence).upper, case.gate.divergence
    return _too_much(case, f"KL at most {upper:.3f} nats a token", upper, allowed)


def _too_much(case: Case, measured: str, upper: float, allowed: float) -> Miss:
    """Return the explanation of an *upper* bound that is over what is *allowed*."""
    return case.miss(measured, f"at most {allowed:.3f}", f"{upper - allowed:.3f} too much", _smaller_patch(case))


def _smaller_patch(case: Case) -> str:
    if case.patch is None:
        return "Nothing was moved: look at the text and the questions."
    share = math.floor(1000 * case.patch.share) / 1000
    return (
        f"{_set('search.max_share', max(0.001, share / 2), f'the patch moves {case.patch.share:.3f}', 'Lower')} "
        'Or try search.transfer = "add".'
    )


def _minimality(case: Case) -> Miss | None:
    numbers, patch = _numbers(case, Minimality), case.student.about.patch
    if patch and not patch.found:
        return case.miss("no patch", "a patch", "none was found", f"{patch.reason[:1].upper()}{patch.reason[1:]}.")
    if not numbers.spare:
        return None
    probes = f"now {case.search.get('max_probes')}; {patch.probes} were used" if patch else "now too few"
    return case.miss(
        f"{len(numbers.spare)} of {numbers.units} units can go",
        "none",
        f"{len(numbers.spare)} too many",
        f"Raise search.max_probes ({probes}), and search again.",
    )


def _unscored(case: Case, numbers: Verdicts) -> Miss:
    n, unscored = numbers.n or 0, numbers.unscored_after or 0
    allowed = math.floor(case.gate.unscored * n)
    if unscored <= allowed:
        return case.miss(
            case.check.summary,
            "a student that answers harmless questions",
            "nothing could be shown",
            "Read its answers (--gate-include-answers), and look whether the harmless questions are harmless.",
        )
    return case.miss(
        f"{unscored} of {n} answers could not be scored",
        f"at most {allowed}",
        f"{max(0, unscored - allowed)} too many",
        "Read the answers (--gate-include-answers) and the chat template; raise max_new_tokens where they are cut off.",
    )


def _set(setting: str, value: float, now: str, verb: str) -> str:
    """Return the sentence that says to set *setting* to *value*, in the registry or by its option."""
    option = "--gate-" + setting.replace(".", "-").replace("_", "-")
    return f"{verb} {setting} to {value:.3g} ({now}), or give {option} {value:.3g}."


def _below(allowed: int, measured: int) -> int:
    """Return how many are *allowed*: fewer than were *measured*, where questions flipped both ways."""
    return min(allowed, measured - 1)


def _numbers(case: Case, _: type[Any]) -> Any:
    """Return the numbers of the check, of which any may be None."""
    return case.check.numbers


_EXPLAINED: Mapping[str, Callable[[Case], Miss | None]] = {
    "defense": _defense,
    "over_refusal": _over_refusal,
    "task": _task,
    "perplexity": _perplexity,
    "divergence": _divergence,
    "minimality": _minimality,
    "tamper": tamper_miss,
}
