"""Read and write the rows that benchmarks keep from run to run: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_harness.files import sha256_text

Row = Mapping[str, Any]


def read(file: Path) -> list[Row]:
    """Return the rows of *file*, or none if there is no file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write *rows* to *file*, and nothing else."""
    file.write_text(_lines(rows), "utf-8")


def add(file: Path, rows: Iterable[Row]) -> None:
    """Append *rows* to *file*. Several processes may append at a time."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(_lines(rows))


def holds(rows: Iterable[Row], row: Row) -> bool:
    """Return whether one of *rows* has all values of *row*."""
    return any(row.items() <= one.items() for one in rows)


def patch_name(key: str, units: Sequence[str]) -> str:
    """Return a patch's name in rows, from its key and its units: another processor may find other units."""
    return f"{key}-{sha256_text(' '.join(units))[:8]}"


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
