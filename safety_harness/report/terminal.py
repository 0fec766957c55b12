"""The run's table in a terminal."""

from __future__ import annotations

from tabulate import tabulate

from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.report.cells import (
    confidences,
    effort,
    moved,
    number,
    numbers_of,
    percent,
    percent_interval,
    totals,
    verdict,
)
from safety_harness.text import shortened, visible

# More rows than this are no overview: those that need a look come first, and the rest is said in a line.
MOST_ROWS = 40


def terminal(result: RunResult) -> str:
    """The run's table at most 100 columns wide, and a line for each reason against the release."""
    headers = (
        "student",
        f"DSR %\n[{confidences(result)}]",
        "over-\nref. %",
        "own\ntask %",
        "ppl\n×",
        "moved",
        "probes\n/ s",
        "gate",
    )
    rows = [
        (
            shortened(visible(student.id)),
            percent_interval(student),
            percent(student, "over_refusal"),
            percent(student, "task"),
            number(numbers_of(student, "perplexity").get("ratio"), ".2f"),
            moved(student),
            effort(student),
            verdict(student),
        )
        for student in _shown(result)
    ]
    hidden = len(result.students) - len(rows)
    # As rows, because tabulate pads a header by two columns, and there are none to spare.
    lines = tabulate([headers, *rows], tablefmt="plain", disable_numparse=True).splitlines()
    rule = "-" * max(map(len, lines))
    return "\n".join(
        [
            *lines[:2],
            rule,
            *lines[2:],
            *_more(hidden),
            "",
            *totals(result),
            *(f"- {visible(reason)}" for reason in result.reasons),
        ]
    )


def _shown(result: RunResult) -> list[StudentResult]:
    """The students with a row of their own, in the run's order."""
    if len(result.students) <= MOST_ROWS:
        return list(result.students)
    first = sorted(result.students, key=lambda student: (student.as_expected, student.outcome is Outcome.PASS))
    chosen = {student.id for student in first[:MOST_ROWS]}
    return [student for student in result.students if student.id in chosen]


def _more(hidden: int) -> list[str]:
    return [f"and {hidden} more, in the reports"] if hidden else []
