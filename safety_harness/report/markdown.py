"""The report as a Markdown page: verdict first, then the evidence, then where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from safety_harness.gate.results import RunResult
from safety_harness.report.cells import (
    JUDGE_FACTS,
    MARKS,
    NOTHING,
    VERSUS_COLUMNS,
    arrow,
    confidences,
    corrected,
    count,
    counted,
    identity,
    interval,
    lineage,
    moved,
    number,
    numbers_of,
    patch_of,
    percent,
    percent_interval,
    plain,
    provenance,
    seconds,
    teacher_count,
    totals,
    value_or_dash,
    verdict,
    versus_rows,
)
from safety_harness.report.comparison import Versus
from safety_harness.text import escape
from safety_harness.weights.units import short


def brief(result: RunResult, against: Versus | None = None) -> str:
    """The verdict, why, and a row a student: for a pull request or a job's summary."""
    headers = (
        "student",
        f"DSR % [{confidences(result)}]",
        "over-refusal %",
        "own task %",
        "perplexity ×",
        "moved",
        "gate",
    )
    rows = [
        (
            student.id,
            percent_interval(student),
            percent(student, "over_refusal"),
            percent(student, "task"),
            number(numbers_of(student, "perplexity").get("ratio"), ".2f"),
            moved(student),
            verdict(student),
        )
        for student in result.students
    ]
    return _joined([*_decision(result), _table(headers, rows), *_against(against)])


def markdown(result: RunResult, against: Versus | None = None) -> str:
    """The report as Markdown: verdict first, then every student, then the evidence and where it came from."""
    sections = [
        *_decision(result),
        *_against(against),
        "## Refusals, held out",
        _defense_table(result),
        "## What it cost, held out",
        _cost_table(result),
        *_further(result),
        "## Patches",
        _patch_table(result),
        "## Units moved",
        _unit_lists(result),
        "## Judge",
        _judge(result.judge),
        "## Rules and provenance",
        _provenance(result),
        "## Sign-off",
        "Reviewed by: ______________________  Date: ______________  Decision: ______________",
    ]
    return _joined(sections)


def _joined(sections: Sequence[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"


def _decision(result: RunResult) -> tuple[str, ...]:
    return (
        f"# Release gate: {MARKS[result.outcome]}",
        "\n".join(totals(result)),
        "\n".join(f"- {escape(reason)}" for reason in result.reasons),
    )


def _against(against: Versus | None) -> tuple[str, ...]:
    if against is None:
        return ()
    return (
        f"## Against {escape(against.name)}",
        _table(VERSUS_COLUMNS, versus_rows(against)) if against.changes else "",
        "\n".join(f"- {escape(note)}" for note in (*against.notes, *against.uncompared)),
    )


def _defense_table(result: RunResult) -> str:
    headers = (
        "student",
        "before",
        "interval",
        "after",
        "interval",
        "corrected",
        "teacher",
        "gained",
        "lost",
        "p",
        "partial",
        "unscored",
        "verdict",
    )
    rows = []
    for student in result.students:
        numbers = numbers_of(student, "defense")
        rows.append(
            (
                student.id,
                count(numbers, "before"),
                interval(numbers, "before_interval"),
                count(numbers, "after"),
                interval(numbers, "after_interval"),
                corrected(result, student),
                teacher_count(student, "harmful"),
                value_or_dash(numbers, "gained"),
                value_or_dash(numbers, "lost"),
                number(numbers.get("p_adjusted", numbers.get("p_improvement")), ".1e"),
                value_or_dash(numbers, "partial_after"),
                value_or_dash(numbers, "unscored_after"),
                verdict(student),
            )
        )
    return _table(headers, rows)


def _cost_table(result: RunResult) -> str:
    headers = (
        "student",
        "over-refusal",
        "rise ≤",
        "teacher",
        "own task",
        "loss ≤",
        "perplexity",
        "ratio ≤",
        "KL (nats/token)",
        "≤",
    )
    rows = []
    for student in result.students:
        over, task = numbers_of(student, "over_refusal"), numbers_of(student, "task")
        text, kl = numbers_of(student, "perplexity"), numbers_of(student, "divergence")
        loss = -task["difference_lower"] if "difference_lower" in task else None
        rows.append(
            (
                student.id,
                arrow(student, "over_refusal"),
                number(over.get("difference_upper"), ".3f"),
                teacher_count(student, "harmless"),
                arrow(student, "task"),
                number(loss, ".3f"),
                f"{number(text.get('before'), '.2f')} → {number(text.get('after'), '.2f')}",
                number(text.get("ratio_upper"), ".3f"),
                number(kl.get("mean"), ".4f"),
                number(kl.get("upper"), ".4f"),
            )
        )
    return _table(headers, rows)


def _further(result: RunResult) -> tuple[str, ...]:
    """The heading and the table of the questions of other sources; nothing where there are none."""
    headers = ("student", "questions", "kind", "refused before", "interval", "after", "interval")
    rows = [
        (student.id, name, found["kind"], *counted(found["before"]), *counted(found["after"]))
        for student in result.students
        for name, found in student.about.get("further", {}).items()
    ]
    return ("## Questions of other sources, recorded and not gated", _table(headers, rows)) if rows else ()


def _patch_table(result: RunResult) -> str:
    headers = ("student", "units", "of", "grain", "transfer", "% parameters", "1-minimal", "probes", "seconds",
               "search", "key")  # fmt: skip
    rows = []
    for student in result.students:
        about = patch_of(student)
        rows.append(
            (
                student.id,
                len(about["units"]) if "units" in about else NOTHING,
                about.get("candidates", NOTHING),
                about.get("grain", NOTHING),
                about.get("transfer", NOTHING),
                number(100 * about["share"] if "share" in about else None, ".2f"),
                {"True": "yes", "False": "no"}.get(str(about.get("minimal")), NOTHING),
                about.get("probes", NOTHING),
                seconds(student),
                escape(str(about.get("reason", NOTHING))),
                str(about.get("key", NOTHING))[:12],
            )
        )
    return _table(headers, rows)


def _unit_lists(result: RunResult) -> str:
    return "\n".join(
        f"- {escape(student.id)}: {escape(', '.join(map(short, patch_of(student)['units'])))}"
        for student in result.students
        if patch_of(student).get("units")
    )


def _judge(judge: Mapping[str, Any]) -> str:
    rows = [
        (name, *(plain(found.get(fact, NOTHING)) for fact in JUDGE_FACTS))
        for name, found in judge.get("sets", {}).items()
    ]
    judged_by = escape(f"{judge.get('name')}, {str(judge.get('fingerprint'))[:12]}")
    note = (
        f"{judged_by}: full refusals against the rest, judge and people. The own anchors were written with the rules "
        "at hand and flatter the judge; rules were developed on parts of the XSTest sets, so answers of new models "
        "may be judged worse. Rates above are as judged, but for the column corrected: the rate behind the judged "
        "one, by the judge's error on the own answers (Rogan-Gladen; its interval carries that error's uncertainty)."
    )
    return f"{note}\n\n{_table(('answers', *JUDGE_FACTS), rows)}"


def _provenance(result: RunResult) -> str:
    rows = provenance(result)
    for student in result.students:
        if known := identity(student):
            rows.append((student.id, known))
        if near := student.about.get("lineage"):
            rows.append((f"{student.id}: lineage", lineage(near)))
    return _table(("what", "value"), rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)
