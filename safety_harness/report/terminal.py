"""Show a run as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from safety_harness.gate.explain import misses
from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.registry.sources import ATTACK
from safety_harness.report import attacks
from safety_harness.report.cells import MARKS, confidences, effort, overview, totals, verdict
from safety_harness.report.head import notices
from safety_harness.report.tampered import gated
from safety_harness.text import counted_noun, shortened, visible

WIDTH = 100  # columns
# More rows than this are no overview: students that need a look come first, and one line counts the rest.
MAX_ROWS_SHOWN = 40
MAX_ADVICE_SHOWN = 6


def terminal(result: RunResult) -> str:
    """Return the run's table at most 100 columns wide, each reason against the release, and which settings move it."""
    under_attack = bool(attacks.names(result))
    headers = attacks.inserted(
        ("student", f"DSR %\n[{confidences(result)}]", "over-\nref. %", "own\ntask %", "ppl\n×", "moved", "probes\n/ s",
         "gate"),
        2, "under\natt. %", where=under_attack,
    )  # fmt: skip
    rows = [
        attacks.inserted(
            (shortened(visible(student.id)), *overview(student), effort(student), verdict(student)),
            2, attacks.share(student), where=under_attack,
        )
        for student in _shown(result)
    ]  # fmt: skip
    hidden = len(result.students) - len(rows)
    lines = _table([headers, *rows])
    if under_attack and (over := max(map(len, lines)) - WIDTH) > 0:  # the names pay for the column
        longest = max(len(name) for name, *_ in rows)
        lines = _table([headers, *((shortened(name, max(9, longest - over)), *row) for name, *row in rows)])
    rule = "-" * max(map(len, lines))
    more = [f"and {hidden} more, in the reports"] if hidden else []
    held = map(visible, gated(result))
    reasons = (f"- {visible(reason)}" for reason in result.reasons)
    advice = (f"  {visible(line)}" for line in advised(result))
    return "\n".join(
        [
            *lines[:2],
            rule,
            *lines[2:],
            *more,
            "",
            *map(visible, notices(result)),
            *totals(result),
            *held,
            *reasons,
            *advice,
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, of which the first row is the heading.

    It is a row, because tabulate pads a header by two columns, and there are none to spare.
    """
    return tabulate(rows, tablefmt="plain", disable_numparse=True).splitlines()


def advised(result: RunResult) -> list[str]:
    """Return a line for each check that was missed: by how much, and which setting moves it."""
    # What one attack lacks adds little to what all of them lack.
    found = sorted(misses(result), key=lambda miss: miss.check.startswith(ATTACK))
    hidden = len(found) - MAX_ADVICE_SHOWN
    more = [f"and {hidden} more: safety-harness report RESULTS --explain"] if hidden > 0 else []
    return [*(f"{miss.student}, {miss.check}: {miss.by}. {miss.advice}" for miss in found[:MAX_ADVICE_SHOWN]), *more]


def explained(result: RunResult) -> str:
    """Return for each check that was missed what it measured, what it needs, and which setting moves it."""
    lines = [f"{visible(str(miss))}\n" for miss in misses(result)]
    return "".join(lines) or "No check was missed of which a setting is known to move it.\n"


def last_line(result: RunResult) -> str:
    """Return the outcome of a run in one line; of known reds with how many students may not ship."""
    mark, total = MARKS[result.outcome], len(result.students)
    if result.outcome is not Outcome.KNOWN_RED:
        return f"gate: {mark}"
    return f"gate: {mark}, {total - len(result.may_ship)} of {counted_noun(total, 'student')} may not ship"


def _shown(result: RunResult) -> list[StudentResult]:
    """Return the students with a row of their own, in the run's order."""
    if len(result.students) <= MAX_ROWS_SHOWN:
        return list(result.students)
    first = sorted(result.students, key=lambda student: (student.as_expected, student.outcome is Outcome.PASS))
    chosen = {student.id for student in first[:MAX_ROWS_SHOWN]}
    return [student for student in result.students if student.id in chosen]
