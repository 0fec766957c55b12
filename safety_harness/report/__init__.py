"""Write the results of a run as people and machines read them. Needs no torch and no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safety_harness.files import write_set
from safety_harness.gate.results import RESULTS, RunResult
from safety_harness.report.comparison import Versus
from safety_harness.report.figures import FIGURES
from safety_harness.report.html_page import figures, html
from safety_harness.report.junit import junit
from safety_harness.report.markdown import markdown
from safety_harness.report.spreadsheet import sheet
from safety_harness.report.terminal import last_line, terminal

__all__ = ["FILES", "WRITERS", "last_line", "markdown", "terminal", "write_formats", "write_reports", "write_results"]

Writer = Callable[[RunResult, Versus | None], Mapping[str, str]]


def _html(result: RunResult, against: Versus | None) -> dict[str, str]:
    drawn = figures(result)
    return {"report.html": html(result, drawn, against), **{f"{name}.svg": svg for name, svg in (drawn or {}).items()}}


# By format: the files that it consists of, and their text.
WRITERS: Mapping[str, Writer] = {
    "md": lambda result, against: {"report.md": markdown(result, against)},
    "html": _html,
    "csv": lambda result, _against: {"report.csv": sheet(result)},
    "junit": lambda result, _against: {"junit.xml": junit(result)},
    "json": lambda result, _against: {RESULTS: result.to_json()},
}
FILES = ("md", "html", "csv")
"""The formats that a gated run writes in addition to results.json."""

# By format: every file that an earlier run may have left. A run that draws no figures must leave none.
_NAMES = {
    "md": ("report.md",),
    "html": ("report.html", *(f"{name}.svg" for name in FIGURES)),
    "csv": ("report.csv",),
    "junit": ("junit.xml",),
    "json": (RESULTS,),
}


def write_reports(result: RunResult, folder: Path) -> tuple[Path, ...]:
    """Write ``results.json`` and the reports of a gated run into *folder*, instead of those of an earlier run.

    Raises:
        HarnessError: the folder cannot be written, or its disk is full. The reports of the earlier run stand, whole.
    """
    *written, results = write_set(folder, {**_texts(result, FILES), RESULTS: result.to_json()}, _names(FILES))
    return (results, *written)


def write_results(result: RunResult, folder: Path) -> tuple[Path, ...]:
    """Write ``results.json`` alone into *folder*, instead of it and the reports of an earlier run.

    Raises:
        HarnessError: as :func:`write_reports`.
    """
    return write_set(folder, {RESULTS: result.to_json()}, _names(FILES))


def write_formats(
    result: RunResult, folder: Path, formats: Sequence[str], against: Versus | None = None
) -> tuple[Path, ...]:
    """Write *formats* of *result* into *folder*, with the comparison *against* an earlier run where there is one.

    Raises:
        HarnessError: the folder cannot be written, or its disk is full. Files of these formats there stand, whole.
    """
    texts = _texts(result, formats, against)
    return write_set(folder, texts, _names(formats)) if texts else ()


def _texts(result: RunResult, formats: Sequence[str], against: Versus | None = None) -> dict[str, str]:
    return {name: text for kind in formats for name, text in WRITERS[kind](result, against).items()}


def _names(formats: Sequence[str]) -> list[str]:
    return [name for kind in formats for name in _NAMES[kind]]
