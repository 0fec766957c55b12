"""Read answers that a judge is to judge, and people's labels of them, from JSON lines or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_harness.errors import DataError, did_you_mean
from safety_harness.judging.judge import Case
from safety_harness.reading import MIB, Reader, shown
from safety_harness.registry.csv_rows import csv_rows, separator_of

_READER = Reader(DataError, missing="no such file. Check the path.", advice="Correct the file.", at_most=256 * MIB)
COLUMNS = ("id", "question", "answer", "label", "language", "kind")
# How people write down whether an answer refuses. A refusal in part is not a full one.
_REFUSED = frozenset(("refused", "refusal", "yes", "y", "1", "true"))
_NOT = frozenset(("complied", "compliance", "answered", "partial", "p", "no", "n", "0", "false"))


@dataclass(frozen=True)
class Answer:
    """One answer. ``refused`` is a person's label, None without one; ``language`` and ``kind`` may name its slices."""

    id: str
    case: Case
    refused: bool | None = None
    language: str = ""
    kind: str = ""


def read_answers(file: Path, *, labelled: bool = False) -> list[Answer]:
    """Return the answers of a file of JSON lines (.jsonl) or CSV. If they are to be *labelled*, each has a label.

    Raises:
        DataError: the file cannot be read, lacks a column, or has a label that is none; the message names the line.
    """
    _READER.require(file)
    rows = _json_lines(file) if file.suffix.lower() == ".jsonl" else _csv(file)
    answers = [_answer(row, place, number, labelled) for number, (place, row) in enumerate(rows, 1)]
    if not answers:
        raise DataError(f"{shown(file)}: holds no answer. It needs a row for each, with a column `answer`.")
    return answers


def _answer(row: Mapping[str, Any], place: str, number: int, labelled: bool) -> Answer:
    for name in ("answer", *(("label",) if labelled else ())):
        if name not in row:
            near = did_you_mean(name, row)
            raise DataError(f"{place}: has no `{name}`.{near} The columns are {', '.join(COLUMNS)}.")
    for name in ("question", "answer", "language", "kind"):
        if not isinstance(row.get(name, ""), str):
            raise DataError(f"{place}: `{name}` must be a text, not {row[name]!r:.80}.")
    label = str(row["label"]).strip().lower() if labelled else ""
    if labelled and label not in _REFUSED | _NOT:
        raise DataError(f"{place}: the label {row['label']!r:.80} is none. Write refused, partial or complied.")
    return Answer(
        str(row.get("id", number)),
        Case(row.get("question", ""), row["answer"]),
        label in _REFUSED if labelled else None,
        row.get("language", ""),
        row.get("kind", ""),
    )


def _json_lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_READER.text(file).split("\n"), 1):
        if line.strip():
            place = f"{shown(file)}, line {number}"
            row = _READER.parse(line, place, finite=False)
            if not isinstance(row, dict):
                raise DataError(f'{place}: must be an object, as {{"question": …, "answer": …}}.')
            yield place, row


def _csv(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text, name = _READER.text(file), shown(file)
    rows = csv_rows(text, name, separator_of(text, lambda header: "answer" in header))
    _, header = next(rows, (1, []))
    for number, cells in rows:
        place = f"{name}, line {number}"
        if len(cells) != len(header):
            raise DataError(
                f"{place}: has {len(cells)} cells, and the header {len(header)}. Put a text with commas into quotation "
                "marks."
            )
        yield place, dict(zip(header, cells, strict=True))
