"""Know the columns of question sets: which holds the question, which its kind of harm, and which rows are asked.

Upper and lower case are alike, so ``Goal`` of one set is ``goal`` of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safety_harness.errors import DataError

# Columns that hold a question. Those of the second row count where there is none of the first: what is called a
# question or an instruction may stand next to the prompt that was made of it.
TEXT_COLUMNS = ("text", "prompt", "goal")
UPSTREAM_COLUMNS = ("forbidden_prompt", "behavior", "prompts_final", "question", "instruction", "turns")
# Columns that hold a kind of harm, from the one that says most.
CATEGORY_COLUMNS = (
    "semanticcategory", "risk_area", "harm_area", "harm_category", "harm_categories", "subcategory", "category", "type",
    "tags",
)  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """What is read of a table: the column of the text and of the answer, and the values that a row must have.

    Without a name, the text is in the first column that is known. An answer is in ``answer`` of JSON lines, and nowhere
    in other tables: what a CSV file calls an answer is as likely a model's.
    """

    text: str = ""
    answer: str = ""
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __bool__(self) -> bool:
        return self != KNOWN

    def text_in(self, names: Iterable[str]) -> list[str]:
        """Return the columns of *names* that may hold the text: one, unless the table is not clear."""
        names = list(names)
        if self.text:
            return [name for name in [column(names, self.text)] if name is not None]
        exact = [name for name in names if name in TEXT_COLUMNS]
        if exact:
            return exact
        for known in (TEXT_COLUMNS, UPSTREAM_COLUMNS):
            if alike := [name for name in names if name.casefold() in known]:
                return alike
        return []

    def keep(self, row: Mapping[str, Any], place: str) -> bool:
        """Return whether *row* has the values of ``where``.

        Raises:
            DataError: it has no column of that name.
        """
        return all(str(cell(row, name, place)).casefold() in wanted for name, wanted in self.where)


KNOWN = Columns()
"""The columns that well-known sets have, and every row."""


def column(names: Iterable[str], wanted: str) -> str | None:
    """Return which of *names* is the column *wanted*, in whatever case; None if none is."""
    names = list(names)
    if wanted in names:
        return wanted
    return next((name for name in names if name.casefold() == wanted.casefold()), None)


def cell(row: Mapping[str, Any], wanted: str, place: str) -> Any:
    """Return what *row* holds in the column *wanted*.

    Raises:
        DataError: it has no such column.
    """
    name = column(row, wanted)
    if name is None:
        raise DataError(
            f"{place}: no column is named {wanted[:80]!r}; it has {', '.join(row)[:200]}. Correct the name."
        )
    return row[name]


def category_column(names: Iterable[str]) -> str | None:
    """Return which of *names* holds a kind of harm; None if none is known."""
    names = list(names)
    return next((name for known in CATEGORY_COLUMNS if (name := column(names, known)) is not None), None)
