"""The run's table in a terminal."""

from __future__ import annotations

from tabulate import tabulate

from safety_harness.report.cells import (
    effort,
    moved,
    number,
    numbers_of,
    percent,
    percent_interval,
    shortened,
    totals,
    verdict,
    visible,
)
from safety_harness.results import RunResult


def terminal(result: RunResult) -> str:
    """The run's table at most 100 columns wide, and a line for each reason against the release."""
    headers = (
        "student",
        "DSR %\n[95 %]",
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
        for student in result.students
    ]
    # As rows, because tabulate pads a header by two columns, and there are none to spare.
    lines = tabulate([headers, *rows], tablefmt="plain", disable_numparse=True).splitlines()
    rule = "-" * max(map(len, lines))
    return "\n".join(
        [*lines[:2], rule, *lines[2:], "", *totals(result), *(f"- {visible(reason)}" for reason in result.reasons)]
    )
