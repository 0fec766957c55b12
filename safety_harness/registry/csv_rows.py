"""Split a CSV file into rows of cells, separated by commas, semicolons or tabs.

The module csv takes a quotation mark inside a cell for a letter. A question that is cut at a comma is another question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from safety_harness.errors import DataError

SEPARATORS = ",;\t"
# The limit of Python's own module csv. An open quotation mark would make the rest of the file a cell.
_LONGEST_CELL = 131_072
_MOST_COLUMNS = 1_000
# A cell in quotation marks, in which each of its own is doubled, or one without any; and what ends it.
_CELL = {mark: re.compile(rf'(?:"((?:[^"]|"")*+)"|([^"{mark}\n]*+))({mark}|\n|\Z)') for mark in SEPARATORS}
_FILLED = re.compile(r"[^\n]")


def separator_of(text: str, is_header: Callable[[Sequence[str]], bool]) -> str:
    """Return which mark separates cells: the first that makes a header of the first line, or else a comma."""
    start = _first_filled(text, 0)
    header = text[start : start + _LONGEST_CELL].partition("\n")[0]
    marks = (mark for mark in SEPARATORS if is_header([cell.strip('"') for cell in header.split(mark)]))
    return next(marks, ",")


def csv_rows(text: str, name: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the number of its first line.

    Raises:
        DataError: the *text* of the file called *name* is not CSV.
    """
    number, begun = 1, 1
    at, cells = 0, list[str]()
    while at < len(text) or cells:
        if not cells:
            start = _first_filled(text, at)
            at, begun = start, number + start - at
            number = begun
            if at == len(text):
                return
        cell = _CELL[separator].match(text, at)
        if cell is None:
            raise DataError(
                f"{name}, line {number}: not CSV (a quotation mark inside a cell without them, or one that is "
                "not closed). Put the cell into quotation marks, and double those within."
            )
        if cell.end() - at > _LONGEST_CELL or len(cells) == _MOST_COLUMNS:
            raise DataError(
                f"{name}, line {number}: not CSV (more than {_LONGEST_CELL} characters in a cell, or more than "
                f"{_MOST_COLUMNS} cells). Look for a quotation mark that is not closed."
            )
        quoted, plain, end = cell.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        at, number = cell.end(), number + text.count("\n", at, cell.end())
        if end != separator:
            yield begun, cells
            cells = []


def _first_filled(text: str, at: int) -> int:
    """Return where the next line begins that is not blank, or the length of *text*."""
    return next((filled.start() for filled in _FILLED.finditer(text, at)), len(text))
