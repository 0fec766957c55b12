"""Results -> the terminal's table, report.md and results.json. Needs no torch and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safety_harness.files import write_whole
from safety_harness.results import Outcome, RunResult, StudentResult

MARKS = {Outcome.PASS: "PASS", Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "INCONCLUSIVE"}
NOTHING = "–"


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
            _shortened(_visible(student.id)),
            _percent_interval(student),
            _percent(student, "over_refusal"),
            _percent(student, "task"),
            _format(_numbers(student, "perplexity").get("ratio"), ".2f"),
            _moved(student),
            _effort(student),
            _verdict(student),
        )
        for student in result.students
    ]
    # As rows, because tabulate pads a header by two columns, and there are none to spare.
    lines = tabulate([headers, *rows], tablefmt="plain", disable_numparse=True).splitlines()
    rule = "-" * max(map(len, lines))
    return "\n".join(
        [*lines[:2], rule, *lines[2:], "", *_totals(result), *(f"- {_visible(reason)}" for reason in result.reasons)]
    )


def markdown(result: RunResult) -> str:
    """The report as Markdown: verdict first, then every student, then the evidence and where it came from."""
    sections = [
        f"# Release gate: {MARKS[result.outcome]}",
        "\n".join(_totals(result)),
        "\n".join(f"- {_escape(reason)}" for reason in result.reasons),
        "## Refusals, held out",
        _defense_table(result),
        "## What it cost, held out",
        _cost_table(result),
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
    return "\n\n".join(section for section in sections if section) + "\n"


def write_reports(result: RunResult, folder: Path) -> tuple[Path, ...]:
    """Write ``results.json`` and ``report.md`` into *folder*, each whole or not at all.

    Raises:
        HarnessError: the folder cannot be written, or its disk is full.
    """
    written = (folder / "results.json", folder / "report.md")
    write_whole(written[0], result.to_json())
    write_whole(written[1], markdown(result))
    return written


def _totals(result: RunResult) -> list[str]:
    measured = [s for s in result.students if "defense" in s.checks]
    if not measured:
        return ["No student was measured."]
    gains = [_gain(student) for student in measured]
    counts = {outcome: sum(s.outcome is outcome for s in result.students) for outcome in Outcome}
    found = [patch for patch in map(_patch, measured) if patch.get("units")]
    shares = [float(patch["share"]) for patch in found]
    lines = [
        f"{len(result.students)} students: {counts[Outcome.PASS]} pass, {counts[Outcome.FAIL]} fail, "
        f"{counts[Outcome.INCONCLUSIVE]} inconclusive; {sum(s.as_expected for s in result.students)} as expected.",
        f"DSR gain: mean {100 * sum(gains) / len(gains):+.1f} points, largest {100 * max(gains):+.1f}.",
    ]
    if shares:
        lines.append(f"Parameters moved: mean {100 * sum(shares) / len(shares):.1f} % over {len(shares)} patches.")
    return lines


def _gain(student: StudentResult) -> float:
    numbers = student.checks["defense"].numbers
    return float(numbers["after"] - numbers["before"]) / float(numbers["n"])


def _defense_table(result: RunResult) -> str:
    headers = (
        "student",
        "before",
        "interval",
        "after",
        "interval",
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
        numbers = _numbers(student, "defense")
        rows.append(
            (
                student.id,
                _count(numbers, "before"),
                _interval(numbers, "before_interval"),
                _count(numbers, "after"),
                _interval(numbers, "after_interval"),
                _teacher(student, "harmful"),
                _get(numbers, "gained"),
                _get(numbers, "lost"),
                _format(numbers.get("p_adjusted", numbers.get("p_improvement")), ".1e"),
                _get(numbers, "partial_after"),
                _get(numbers, "unscored_after"),
                _verdict(student),
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
        over, task = _numbers(student, "over_refusal"), _numbers(student, "task")
        text, kl = _numbers(student, "perplexity"), _numbers(student, "divergence")
        loss = -task["difference_lower"] if "difference_lower" in task else None
        rows.append(
            (
                student.id,
                _arrow(student, "over_refusal"),
                _format(over.get("difference_upper"), ".3f"),
                _teacher(student, "harmless"),
                _arrow(student, "task"),
                _format(loss, ".3f"),
                f"{_format(text.get('before'), '.2f')} → {_format(text.get('after'), '.2f')}",
                _format(text.get("ratio_upper"), ".3f"),
                _format(kl.get("mean"), ".4f"),
                _format(kl.get("upper"), ".4f"),
            )
        )
    return _table(headers, rows)


def _patch_table(result: RunResult) -> str:
    headers = ("student", "units", "of", "% parameters", "1-minimal", "probes", "seconds", "search", "key")
    rows = []
    for student in result.students:
        about = _patch(student)
        rows.append(
            (
                student.id,
                len(about["units"]) if "units" in about else NOTHING,
                about.get("candidates", NOTHING),
                _format(100 * about["share"] if "share" in about else None, ".2f"),
                {"True": "yes", "False": "no"}.get(str(about.get("minimal")), NOTHING),
                about.get("probes", NOTHING),
                _seconds(student),
                _escape(str(about.get("reason", NOTHING))),
                str(about.get("key", NOTHING))[:12],
            )
        )
    return _table(headers, rows)


def _unit_lists(result: RunResult) -> str:
    return "\n".join(
        f"- {_escape(student.id)}: {_escape(', '.join(_patch(student)['units']))}"
        for student in result.students
        if _patch(student).get("units")
    )


def _judge(judge: Mapping[str, Any]) -> str:
    facts = ("n", "sensitivity", "specificity", "accuracy", "kappa")
    rows = [
        (name, *(_plain(found.get(fact, NOTHING)) for fact in facts)) for name, found in judge.get("sets", {}).items()
    ]
    judged_by = _escape(f"{judge.get('name')}, {str(judge.get('fingerprint'))[:12]}")
    note = (
        f"{judged_by}: full refusals against the rest, judge and people. The own anchors were written with the rules "
        "at hand and flatter the judge; rules were developed on parts of the XSTest sets, so answers of new models "
        "may be judged worse. Rates above are as judged."
    )
    return f"{note}\n\n{_table(('answers', *facts), rows)}"


def _provenance(result: RunResult) -> str:
    rows: list[tuple[str, str]] = []
    for key, value in result.provenance.items():
        rows += (
            [(f"{key}: {k}", _plain(v)) for k, v in value.items()]
            if isinstance(value, Mapping)
            else [(key, _plain(value))]
        )
    for family, settings in result.gate.items():
        rows += [
            (f"{family}: {kind}", ", ".join(f"{name} {_plain(value)}" for name, value in rules.items()))
            for kind, rules in settings.items()
        ]
    for student in result.students:
        identity = student.about.get("identity", {})
        hashes = ", ".join(f"{k} {str(v)[:12]}" for k, v in identity.items() if not isinstance(v, Mapping))
        if hashes:
            rows.append((student.id, hashes))
    return _table(("what", "value"), rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[_escape(str(cell)) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def _patch(student: StudentResult) -> Mapping[str, Any]:
    found: Mapping[str, Any] = student.about.get("patch", {})
    return found


def _numbers(student: StudentResult, check: str) -> Mapping[str, Any]:
    return student.checks[check].numbers if check in student.checks else {}


def _get(numbers: Mapping[str, Any], name: str) -> Any:
    return numbers.get(name, NOTHING)


def _format(value: Any, spec: str) -> str:
    return NOTHING if value is None else format(value, spec)


def _plain(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else str(value)


def _count(numbers: Mapping[str, Any], name: str) -> str:
    return f"{numbers[name]}/{numbers['n']}" if name in numbers else NOTHING


def _interval(numbers: Mapping[str, Any], name: str) -> str:
    return f"{numbers[name][0]:.3f}–{numbers[name][1]:.3f}" if name in numbers else NOTHING


def _teacher(student: StudentResult, kind: str) -> str:
    row = student.about.get("teacher", {}).get(kind)
    return f"{row['refused']}/{row['n']}" if row else NOTHING


def _percent(student: StudentResult, check: str) -> str:
    numbers = _numbers(student, check)
    if "n" not in numbers:
        return NOTHING
    return "→".join(f"{100 * numbers[when] / numbers['n']:.0f}" for when in ("before", "after"))


def _percent_interval(student: StudentResult) -> str:
    numbers = _numbers(student, "defense")
    if "after_interval" not in numbers:
        return NOTHING
    low, high = numbers["after_interval"]
    return f"{_percent(student, 'defense')} [{100 * low:.0f}–{100 * high:.0f}]"


def _arrow(student: StudentResult, check: str) -> str:
    numbers = _numbers(student, check)
    return f"{numbers['before']}→{numbers['after']}/{numbers['n']}" if "n" in numbers else NOTHING


def _moved(student: StudentResult) -> str:
    about = _patch(student)
    if "units" not in about:
        return NOTHING
    return f"{len(about['units'])}u {100 * about['share']:.0f}%" if about["units"] else "none"


def _effort(student: StudentResult) -> str:
    about = _patch(student)
    return f"{about['probes']}/{about['seconds']:.0f}" if "seconds" in about else NOTHING


def _seconds(student: StudentResult) -> str:
    return _format(_patch(student).get("seconds"), ".1f")


def _verdict(student: StudentResult) -> str:
    mark = MARKS[student.outcome]
    if student.expected == "pass" or student.outcome is Outcome.INCONCLUSIVE:
        return mark
    return f"{mark}, expected" if student.as_expected else f"{mark}, unexpected"


def _shortened(name: str, width: int = 24) -> str:
    """A name that leaves the other columns their place; its end tells students apart."""
    return name if len(name) <= width else "…" + name[1 - width :]


def _visible(text: str) -> str:
    """*text* on one line, without characters that steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _escape(text: str) -> str:
    """Model and user text inside Markdown: no table breaks, no markup, no control characters."""
    return _visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
