"""Follow each question through all attacks: its letter before → after patching, and whether it is safe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safety_harness.gate.asked import NOT_ASKED, as_counted
from safety_harness.gate.decide import premise_of
from safety_harness.gate.numbers import Attack, Defense
from safety_harness.gate.results import Check, RunResult, StudentResult
from safety_harness.gate.under_attack import safe
from safety_harness.registry.sources import ATTACK

# A page with more of them does not open any more.
MOST_CELLS = 200_000
PLAIN = "asked plainly"


@dataclass(frozen=True)
class Fate:
    """What became of a question under one attack: its letters and samples, and whether it counts as unsafe."""

    letters: str
    unsafe: bool
    samples: str


@dataclass(frozen=True)
class Fates:
    """A student's questions under its attacks: a check for each column, and a row for each question, the worst first.

    A row has the place of its question in the set. The first column is of questions asked plainly, where they were.
    """

    checks: tuple[Check, ...]
    rows: tuple[tuple[int, tuple[Fate, ...]], ...]

    @property
    def columns(self) -> list[str]:
        """The headings of the columns."""
        aside = [" (does not count)" if not one.counts else "" for one in self.checks]
        named = [PLAIN if one.name == Defense.check else one.name.removeprefix(ATTACK) for one in self.checks]
        return [f"{name}{note}" for name, note in zip(named, aside, strict=True)]

    @property
    def unsafe(self) -> int:
        """How many questions are unsafe under some attack that counts."""
        first = sum(one.name == Defense.check for one in self.checks)
        return sum(any(fate.unsafe for fate in row[first:]) for _, row in self.rows)

    @property
    def sampled(self) -> bool:
        """Whether some attack has more than one answer to a question."""
        return any(fate.samples for _, row in self.rows for fate in row)


def too_many(result: RunResult) -> bool:
    """Return whether a page of all fates would be too large to open."""
    every = (check.asked for student in result.students for check in _asked_under(student))
    return sum(len(asked.after) for asked in every if asked) > MOST_CELLS


def fates(result: RunResult, student: StudentResult) -> Fates | None:
    """Return the fates of the questions of *student*; None where none was asked under attack."""
    under = _asked_under(student)
    if not under or under[0].asked is None:
        return None
    of_set, premise = under[0].asked.set, premise_of(student.id, result.gate)
    plain = [check for name, check in student.checks.items() if name == Defense.check]
    checks = [check for check in (*plain, *under) if check.asked and check.asked.set == of_set]
    rows = list(enumerate(zip(*(_of_check(check, premise) for check in checks), strict=False)))
    worst = sorted(rows, key=lambda row: -sum(fate.unsafe for fate in row[1]))
    return Fates(tuple(checks), tuple(worst))


def _asked_under(student: StudentResult) -> list[Check]:
    """Return the checks of the attacks that asked something."""
    return [check for check in student.checks.values() if isinstance(check.numbers, Attack) and check.asked]


def _of_check(check: Check, premise: str) -> Iterator[Fate]:
    """Yield the fate of each question of one check."""
    asked = check.asked
    if asked is None:
        return
    counted = as_counted(asked, premise)
    now = iter(safe(counted.after, counted.harmful_after))
    draws = iter(_draws(check))
    for at, (before, after) in enumerate(zip(asked.before, asked.after, strict=True)):
        if after == NOT_ASKED:
            yield Fate(NOT_ASKED, False, "")
            continue
        sides = (f"{before}{_harmless(asked.harmful_before, at)}", f"{after}{_harmless(asked.harmful_after, at)}")
        unsafe = not next(now)
        yield Fate("→".join(sides), unsafe and check.counts, next(draws, ""))


def _harmless(harm: str, at: int) -> str:
    """Return a mark where the judge calls an answer harmless."""
    return "°" if harm and harm[at] == "N" else ""


def _draws(check: Check) -> Sequence[str]:
    """Return of each question that was asked how many of its samples are unsafe, before and after."""
    numbers = check.numbers
    if not isinstance(numbers, Attack) or not numbers.unsafe_before or not numbers.unsafe_after:
        return ()
    pairs = zip(numbers.unsafe_before, numbers.unsafe_after, strict=False)
    return [f"{before}→{after}/{numbers.samples}" for before, after in pairs]
