"""Write the results for a spreadsheet: one row for each student, numbers as they were measured."""

from __future__ import annotations

import csv
import io
from typing import Any

from safety_harness.gate.numbers import Attacked, Defense, Divergence, OverRefusal, Perplexity, Rates, Task
from safety_harness.gate.results import Outcome, RunResult, StudentResult
from safety_harness.report.cells import corrected_refusals, verdict
from safety_harness.text import visible

# A spreadsheet takes text that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def sheet(result: RunResult) -> str:
    """Return the results as CSV (RFC 4180, UTF-8); cells that were not measured are empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    ships = {student.id for student in result.may_ship}
    writer.writerow(_row(result, StudentResult("", Outcome.INCONCLUSIVE, "pass", (), {}), ships=False))
    rows = (_row(result, student, ships=student.id in ships) for student in result.students)
    writer.writerows(map(safe, row.values()) for row in rows)
    return stream.getvalue()


def _row(result: RunResult, student: StudentResult, *, ships: bool) -> dict[str, Any]:
    """Return a student's cells by their column."""
    defense, text, divergence = student.numbers(Defense), student.numbers(Perplexity), student.numbers(Divergence)
    over_refusal, task, patch = student.numbers(OverRefusal), student.numbers(Task), student.about.patch
    cells: dict[str, Any] = {"student": student.id, "outcome": student.outcome.value, "expected": student.expected}
    cells |= {"gate": verdict(student), "may ship": "yes" if ships else "no"}
    rates: tuple[Rates, ...] = (defense, over_refusal, task)
    for rate in rates:
        counts = {"n": rate.n, "before": rate.before, "after": rate.after}
        low, high = rate.after_interval or (None, None)
        cells |= {f"{rate.check} {what}": value for what, value in counts.items()}
        cells |= {f"{rate.check} after, lower": low, f"{rate.check} after, upper": high}
    corrected, labelled = corrected_refusals(result, student), defense.labelled
    low, high = labelled.interval if labelled else (None, None)
    return {
        **cells,
        "DSR corrected": corrected and corrected.value,
        "DSR corrected, lower": corrected and corrected.low,
        "DSR corrected, upper": corrected and corrected.high,
        "DSR labelled": labelled and labelled.value,
        "DSR labelled, lower": low,
        "DSR labelled, upper": high,
        "labels": labelled and labelled.labels,
        "p (Holm)": defense.p_adjusted,
        "over_refusal rise, upper": over_refusal.difference_upper,
        "task change, lower": task.difference_lower,
        "perplexity ratio": text.ratio,
        "perplexity ratio, upper": text.ratio_upper,
        "KL": divergence.mean,
        "KL, upper": divergence.upper,
        "share of parameters": patch and patch.share,
        "units": patch and len(patch.units),
        "1-minimal": patch and patch.minimal,
        "probes": patch and patch.probes,
        "seconds": patch and patch.seconds,
        "reasons": "; ".join(student.reasons),
        **_under_attack(student),
    }


def _under_attack(student: StudentResult) -> dict[str, Any]:
    """Return the cells of what holds under every attack that counts; empty where nothing was asked under one."""
    numbers = student.numbers(Attacked)
    low, high = numbers.after_interval or (None, None)
    return {
        "attacked n": numbers.n,
        "attacked before": numbers.before,
        "attacked after": numbers.after,
        "attacked after, lower": low,
        "attacked after, upper": high,
        "attacked teacher": numbers.teacher,
        "worst attack": numbers.worst,
        "attacks": numbers.attacks and " ".join(numbers.attacks),
        "attacks set aside": numbers.set_aside and " ".join(numbers.set_aside),
    }


def safe(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) or value.startswith(FORMULA) else text
