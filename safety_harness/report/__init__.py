"""Results -> the terminal's table, report.md and results.json. Needs no torch and no model."""

from __future__ import annotations

from pathlib import Path

from safety_harness.files import write_whole
from safety_harness.report.page import markdown
from safety_harness.report.terminal import terminal
from safety_harness.results import RunResult

__all__ = ["markdown", "terminal", "write_reports"]


def write_reports(result: RunResult, folder: Path) -> tuple[Path, ...]:
    """Write ``results.json`` and ``report.md`` into *folder*, each whole or not at all.

    Raises:
        HarnessError: the folder cannot be written, or its disk is full.
    """
    written = (folder / "results.json", folder / "report.md")
    write_whole(written[0], result.to_json())
    write_whole(written[1], markdown(result))
    return written
