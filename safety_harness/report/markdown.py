"""Write the report as Markdown: the verdict first, then the evidence, then where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from safety_harness.gate.limits import not_shown
from safety_harness.gate.numbers import Defense, Divergence, OverRefusal, Perplexity, Task
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.judging.rules import RuleJudge
from safety_harness.report import attacks, cells, head, people, remains, tampered
from safety_harness.report.cells import NOTHING, number, value_or_dash
from safety_harness.report.comparison import Versus
from safety_harness.text import escape
from safety_harness.weights.units import short


def brief(result: RunResult, against: Versus | None = None) -> str:
    """Return the verdict, why, and one row for each student: for a pull request or a job's summary."""
    asked = bool(attacks.names(result))
    columns = ("student", f"DSR % [{cells.confidences(result)}]", "over-refusal %", "own task %", "perplexity ×",
               "moved", "gate")  # fmt: skip
    headers = attacks.inserted(columns, 2, attacks.COLUMN, where=asked)
    rows = [
        attacks.inserted(
            (student.id, *cells.overview(student), cells.verdict(student)), 2, attacks.share(student), where=asked
        )
        for student in result.students
    ]
    return _joined([*_decision(result), _table(headers, rows), *_against(against)])


def markdown(result: RunResult, against: Versus | None = None) -> str:
    """Return the report as Markdown: verdict first, then every student, the evidence, and where it came from."""
    sections = [
        *_decision(result),
        *_against(against),
        "## What was gated",
        _gated(result),
        *_what_remains(result),
        "## What the gate does not show",
        "\n".join(
            f"- {line}" for line in not_shown(under_attack=attacks.some_count(result), tuned=tampered.every(result))
        ),
        "## Refusals, held out",
        _defense_table(result),
        *_under_attack(result),
        "## What it cost, held out",
        _cost_table(result),
        *_further(result),
        *_tampered(result),
        "## Patches",
        _patch_table(result),
        "## Units moved",
        _unit_lists(result),
        "## Judge",
        _judge(result),
        "## Rules and provenance",
        _provenance(result),
        "## Sign-off",
        f"{cells.MARKS[result.outcome]}: results {result.sha256}, and the models and patches under *What was gated*.",
        "Reviewed by: ______________________  Date: ______________  Decision: ______________",
    ]
    return _joined(sections)


def _joined(sections: Sequence[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"


def _decision(result: RunResult) -> tuple[str, ...]:
    return (
        f"# Release gate: {cells.MARKS[result.outcome]}",
        "\n".join(f"**{escape(line)}**" for line in head.notices(result)),
        "\n".join(cells.totals(result)),
        "\n".join(f"- {escape(reason)}" for reason in result.reasons),
    )


def _against(against: Versus | None) -> tuple[str, ...]:
    if against is None:
        return ()
    return (
        f"## Against {escape(against.name)}",
        _table(cells.VERSUS_COLUMNS, cells.versus_rows(against)) if against.changes else "",
        "\n".join(f"- {escape(note)}" for note in (*against.notes, *against.uncompared)),
    )


def _gated(result: RunResult) -> str:
    """Return what identifies the run, its models and patches, and its thresholds."""
    hashes = [
        (f"{student.id}: {what}", f"{digest} ({name})" if name != NOTHING else digest)
        for student in result.students
        for what, name, digest in head.models(student)
    ]
    thresholds = [
        (f"{family}: {name}", f"{used}, {_compared(differs)} default {default}" if differs else f"{used}, the default")
        for family, name, used, default, differs in head.thresholds(result)
    ]
    return _table(("what", "value"), [*head.of_the_run(result), *hashes, *thresholds])


def _compared(differs: str) -> str:
    """Return in words how a threshold differs from its default."""
    return f"{differs} than the" if differs in ("looser", "stricter") else "not the"


def _what_remains(result: RunResult) -> list[str]:
    """Return the sections about what is still wrong: the risk in words, then every question with its category."""
    risks = (f"- {escape(one.id)}: {remains.risk(result, one)}" for one in result.students)
    trust = (f"- {escape(line)}" for line in people.trust(result))
    sections = ["## What remains", remains.judge_errs(result), "\n".join(trust), "\n".join(risks)]
    for one in remains.remains(result):
        sections += [f"### {escape(one.kind.heading)}", "\n".join(f"- {escape(line)}" for line in one.unknown)]
        if one.questions:
            rows = [
                (each.question.id, each.question.category, each.question.text, *_by_verdict(each))
                for each in one.questions
            ]
            sections.append(_table(("question", "category", "text", "verdict: students"), rows))
        elif one.shares:
            sections.append(escape(one.kind.nothing))
        if one.shares:
            shares = [(share.student, share.category, share.asked, share.wrong) for share in one.shares]
            sections.append(_table(("student", "category", "asked", one.kind.counted), shares))
    return sections


def _by_verdict(one: remains.Remaining) -> tuple[str]:
    return ("; ".join(f"{word}: {', '.join(ids)}" for word, ids in one.students.items()),)


def _defense_table(result: RunResult) -> str:
    headers = ("student", "before", "interval", "after", "interval", "corrected", "labelled", "teacher", "gained",
               "lost", "p", "partial", "unscored", "verdict")  # fmt: skip
    rows = []
    for student in result.students:
        numbers = student.numbers(Defense)
        p_value = numbers.p_improvement if numbers.p_adjusted is None else numbers.p_adjusted
        rows.append((
            student.id, cells.count(numbers.before, numbers.n), cells.interval(numbers.before_interval),
            cells.count(numbers.after, numbers.n), cells.interval(numbers.after_interval),
            cells.corrected(result, student), people.labelled(student), cells.refused(student.about.teacher.harmful),
            value_or_dash(numbers.gained), value_or_dash(numbers.lost), number(p_value, ".1e"),
            value_or_dash(numbers.partial_after), value_or_dash(numbers.unscored_after), cells.verdict(student),
        ))  # fmt: skip
    return _table(headers, rows)


def _under_attack(result: RunResult) -> tuple[str, ...]:
    """Return the map of students and attacks, then each attack with its control; nothing where none was asked."""
    if not (students := attacks.under_attack(result)):
        return ()
    rows = [(one.student.id, *row) for one in students for row in attacks.details(result, one)]
    return (
        "## Under attack, held out",
        attacks.MAP_NOTE,
        _table([escape(name) for name in attacks.map_columns(result)], attacks.map_rows(result)),
        attacks.DETAILS_NOTE,
        _table(("student", *attacks.detail_columns(result)), rows),
        _table(attacks.SOURCES, attacks.sources(result)),
    )


def _cost_table(result: RunResult) -> str:
    headers = ("student", "over-refusal", "rise ≤", "teacher", "own task", "loss ≤", "perplexity", "ratio ≤",
               "KL (nats/token)", "≤")  # fmt: skip
    rows = []
    for student in result.students:
        over, task = student.numbers(OverRefusal), student.numbers(Task)
        text, divergence = student.numbers(Perplexity), student.numbers(Divergence)
        loss = None if task.difference_lower is None else -task.difference_lower
        rows.append((
            student.id, cells.arrow(over), number(over.difference_upper, ".3f"),
            cells.refused(student.about.teacher.harmless), cells.arrow(task), number(loss, ".3f"),
            f"{number(text.before, '.2f')} → {number(text.after, '.2f')}", number(text.ratio_upper, ".3f"),
            number(divergence.mean, ".4f"), number(divergence.upper, ".4f"),
        ))  # fmt: skip
    return _table(headers, rows)


def _further(result: RunResult) -> tuple[str, ...]:
    """Return the heading and the table of the questions of other sources; nothing where there are none."""
    headers = ("student", "questions", "kind", "refused before", "interval", "after", "interval")
    rows = [
        (student.id, name, further.kind, *cells.refused_with_interval(further.before),
         *cells.refused_with_interval(further.after))
        for student in result.students
        for name, further in student.about.further.items()
    ]  # fmt: skip
    return ("## Questions of other sources, recorded and not gated", _table(headers, rows)) if rows else ()


def _tampered(result: RunResult) -> tuple[str, ...]:
    """Return the heading, the recipe and the table of what tuning leaves; nothing where none was asked for."""
    rows = tampered.rows(result)
    recipes = escape(" ".join(tampered.recipes(result)))
    return (f"## {tampered.HEADING}", recipes, _table(tampered.COLUMNS, rows)) if rows else ()


def _patch_table(result: RunResult) -> str:
    headers = ("student", "units", "of", "grain", "transfer", "% parameters", "1-minimal", "probes", "seconds",
               "search", "key")  # fmt: skip
    rows = [_patch_cells(student) for student in result.students]
    return _table(headers, rows)


def _patch_cells(student: StudentResult) -> tuple[object, ...]:
    if (patch := student.about.patch) is None:
        return (student.id, *[NOTHING] * 10)
    return (
        student.id, len(patch.units), patch.candidates, patch.grain, patch.transfer, f"{100 * patch.share:.2f}",
        "yes" if patch.minimal else "no", patch.probes, f"{patch.seconds:.1f}", escape(patch.reason), patch.key[:12],
    )  # fmt: skip


def _unit_lists(result: RunResult) -> str:
    return "\n".join(
        f"- {escape(student.id)}: {escape(', '.join(map(short, patch.units)))}"
        for student in result.students
        if (patch := student.about.patch) and patch.units
    )


def _judge(result: RunResult) -> str:
    judged_by = escape(f"{result.judge.name}, {str(result.judge.fingerprint)[:12]}")
    note = f"{judged_by}: full refusals against the rest, judge and people. "
    if result.judge.name == RuleJudge.name:
        note += (
            "The own anchors were written with the rules at hand and flatter the judge; rules were developed on parts "
            "of the XSTest sets, so answers of new models may be judged worse. An answer in a language that it has no "
            "rules for is unscored. "
        )
    elif not result.judge.sets:
        note += "How often it errs was not measured: `safety-harness judge --calibrate --judge NAME` does it. "
    note += (
        "Rates above are as judged, but for two columns. Corrected: the rate behind the judged "
        "one, by the judge's error on the own answers (Rogan-Gladen; its interval carries that error's uncertainty). "
        "Labelled: the rate that follows from people's labels on some of these answers."
    )
    harmful = [
        f"- {escape(student.id)}: the judge calls {said} answers to harmful questions harmful."
        for student in result.students
        if (said := cells.harmful(student))
    ]
    table = _table(cells.JUDGE_COLUMNS, cells.judge_rows(result)) if result.judge.sets else ""
    return "\n\n".join(filter(None, [note, table, "\n".join(harmful)]))


def _provenance(result: RunResult) -> str:
    rows = cells.provenance(result)
    for student in result.students:
        if gated := cells.subject(student):
            rows.append((f"{student.id}: gated", gated))
        if known := cells.identity(student):
            rows.append((student.id, known))
        if near := student.about.lineage:
            rows.append((f"{student.id}: lineage", cells.lineage(near)))
    return _table(("what", "value"), rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    escaped = [[escape(str(cell)) for cell in row] for row in rows]
    return tabulate(escaped, headers, tablefmt="github", disable_numparse=True)
