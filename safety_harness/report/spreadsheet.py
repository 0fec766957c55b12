"""The results for a spreadsheet: a row a student, numbers as they were measured."""

from __future__ import annotations

import csv
import io
from typing import Any

from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.report.cells import numbers_of, patch_of
from safety_harness.text import visible

# Text that begins so is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def sheet(result: RunResult) -> str:
    """The results as CSV (RFC 4180, UTF-8); cells that were not measured are empty."""
    rows = [_row(student) for student in result.students]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(_row(None))
    writer.writerows([[_safe(value) for value in row.values()] for row in rows])
    return stream.getvalue()


def _row(student: StudentResult | None) -> dict[str, Any]:
    """A student's cells by their column; of no student, the columns."""
    numbers = {name: numbers_of(student, name) if student else {} for name in ("defense", "over_refusal", "task")}
    text, kl = (numbers_of(student, name) if student else {} for name in ("perplexity", "divergence"))
    patch = patch_of(student) if student else {}
    units = patch.get("units")
    cells: dict[str, Any] = {
        "student": student and student.id,
        "outcome": student and student.outcome.value,
        "expected": student and student.expected,
    }
    for name, found in numbers.items():
        cells |= {f"{name} {what}": found.get(what) for what in ("n", "before", "after")}
        low, high = found.get("after_interval", (None, None))
        cells |= {f"{name} after, lower": low, f"{name} after, upper": high}
    cells |= {
        "p (Holm)": numbers["defense"].get("p_adjusted"),
        "over_refusal rise, upper": numbers["over_refusal"].get("difference_upper"),
        "task change, lower": numbers["task"].get("difference_lower"),
        "perplexity ratio": text.get("ratio"),
        "perplexity ratio, upper": text.get("ratio_upper"),
        "KL": kl.get("mean"),
        "KL, upper": kl.get("upper"),
        "share of parameters": patch.get("share"),
        "units": None if units is None else len(units),
        "1-minimal": patch.get("minimal"),
        "probes": patch.get("probes"),
        "seconds": patch.get("seconds"),
        "reasons": student and "; ".join(student.reasons),
    }
    return cells


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) or value.startswith(FORMULA) else text
