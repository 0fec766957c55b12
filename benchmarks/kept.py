"""Rows that benchmarks keep from run to run: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_harness.files import sha256_text

Row = Mapping[str, Any]


def read(file: Path) -> list[Row]:
    """The rows of *file*; none where it is not there."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def write(file: Path, rows: Iterable[Row]) -> None:
    """Make *file* hold *rows* and nothing else."""
    file.write_text(_lines(rows), "utf-8")


def add(file: Path, rows: Iterable[Row]) -> None:
    """Add *rows* to *file*, whatever others add meanwhile."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(_lines(rows))


def holds(rows: Iterable[Row], row: Row) -> bool:
    """Whether one of *rows* says all that *row* says."""
    return any(row.items() <= one.items() for one in rows)


def patch_name(key: str, units: Sequence[str]) -> str:
    """Of a patch, in rows: what was searched for, and what came out, which another processor may find otherwise."""
    return f"{key}-{sha256_text(' '.join(units))[:8]}"


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
