"""Collect what the page shows of attacks: the map of all students, and the fate of each question of one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from safety_harness.gate.asked import Asked
from safety_harness.gate.numbers import Attack
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.report import attacks
from safety_harness.report.fates import Fate, Fates, fates, too_many

MOST_ANSWERS = 25  # of a student under one attack: the page has to stay readable
Link = Callable[[Asked, int], Markup]
"""Returns the HTML of a link to a question, by what was asked and its place."""
Answers = Callable[[Asked, Sequence[int]], Iterable[Any]]
"""Returns the answers to questions, as the page shows those that flipped."""


def of_run(result: RunResult) -> dict[str, Any]:
    """Return what the page shows of all students under attack."""
    under = attacks.under_attack(result)
    return {
        "under_attack": under,
        "attack_names": attacks.names(result),
        "attack_columns": attacks.detail_columns(result),
        "attack_sources": attacks.sources(result),
        "attack_details": {
            one.student.id: list(
                zip((cell.look for cell in one.each if cell), attacks.details(result, one), strict=True)
            )
            for one in under
        },
        "without_fates": too_many(result),
        "shade": shade,
    }


def of_student(
    result: RunResult, student: StudentResult, link: Link, answers: Answers, *, without_fates: bool
) -> dict[str, Any]:
    """Return what the page shows of a student's questions under attack."""
    known = None if without_fates else fates(result, student)
    return {
        "fates": known,
        "fate_rows": _rows(known, link) if known else [],
        "attacked_answers": _answers(known, answers) if known else [],
    }


def shade(unsafe: float | None) -> Markup:
    """Return the attribute by which a cell is coloured; none where nothing is known."""
    return Markup("") if unsafe is None else Markup(' style="--unsafe: {}"').format(f"{unsafe:.3f}")


def _rows(known: Fates, link: Link) -> list[tuple[Markup, Markup]]:
    """Return of each question its link, and its cells in one piece: a page may have a hundred thousand."""
    first = known.checks[0].asked
    assert first is not None
    return [(link(first, at), Markup("").join(map(_cell, row))) for at, row in known.rows]


def _cell(fate: Fate) -> Markup:
    text = " ".join(filter(None, [fate.letters, fate.samples, "✗" if fate.unsafe else ""]))
    return Markup('<td class="u">{}</td>' if fate.unsafe else "<td>{}</td>").format(text)


def _answers(known: Fates, answers: Answers) -> list[tuple[str, Sequence[Any], int]]:
    """Return of each attack the first answers that are unsafe, and how many there are; none where none were kept."""
    found: list[tuple[str, Sequence[Any], int]] = []
    for column, (name, check) in enumerate(zip(known.columns, known.checks, strict=True)):
        if not isinstance(check.numbers, Attack) or not check.asked or not check.asked.answers_after:
            continue
        unsafe = sorted(at for at, row in known.rows if row[column].unsafe)
        if unsafe:
            found.append((name, list(answers(check.asked, unsafe[:MOST_ANSWERS])), len(unsafe)))
    return found
