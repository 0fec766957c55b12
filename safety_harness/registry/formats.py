"""Read the prompts of a file in any of the formats: JSON lines, CSV, text, or YAML as PyRIT writes it.

A row of JSON lines may hold a conversation (:mod:`safety_harness.registry.messages`).

What does not add up is an error with its line.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from safety_harness.conversation import Asked, Conversation, asked_text, digest_of
from safety_harness.errors import DataError
from safety_harness.reading import MIB, Reader, shown
from safety_harness.registry.columns import KNOWN, TEXT_COLUMNS, Columns, category_column, cell
from safety_harness.registry.csv_rows import csv_rows, separator_of
from safety_harness.registry.messages import MESSAGES, PREFILL, begun, conversation_in

READER = Reader(
    DataError,
    missing="no such prompt file. Check the path (one in a registry is relative to its file).",
    advice="Correct the file, or the path in the registry.",
    at_most=64 * MIB,
)
# A document of a few hundred pages. No model reads more at once.
_LONGEST_TEXT = MIB
_LONGEST_LINE = 4 * MIB
# YAML is read at about a tenth of the speed of the other formats.
_MOST_YAML = 2 * MIB
_DEEPEST_YAML = 20
# What stands before the answer of a word problem, behind the steps that lead to it (GSM8K).
_ANSWER_MARK = "####"

_RESOLVER: Any = yaml.resolver.Resolver()

# Formats whose rows have named columns.
TABLES = (".jsonl", ".csv", ".tsv")
# The values of a prompt: text, id, answer, category and conversation.
Row = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """One question or document. A task's question has a right ``answer``; ``category`` may name a kind of harm.

    Where a ``conversation`` asks the question, it is what is sent, and ``text`` is the plain question in it.
    """

    id: str
    text: str
    answer: str | None = None
    category: str = ""
    conversation: Conversation | None = None

    @property
    def sent(self) -> Asked:
        """What a model is asked."""
        return self.conversation or self.text

    @property
    def said(self) -> str:
        """All that the user says, by which questions are compared: a conversation may end with a mere "yes"."""
        if self.conversation is None:
            return self.text
        return "\n".join(text for role, text in self.conversation.pairs if role == "user")


def parse(path: Path, columns: Columns = KNOWN) -> Iterator[Prompt]:
    """Yield the prompts of a file, whose ending names the format.

    Raises:
        DataError: the file cannot be read, or something in it does not add up; the message names the line.
    """
    READER.require(path)
    ending = path.suffix.lower()
    rows: Iterator[Row]
    match ending:
        case ".jsonl":
            rows = _json_lines(path, columns)
        case ".csv" | ".tsv":
            rows = _csv(path, columns)
        case ".txt":
            rows = ({"text": line} for line in _lines(path))
        case ".yaml" | ".yml" | ".prompt":
            rows = _seeds(path)
        case other:
            raise DataError(f"{shown(path)}: format {other!r} is not known; use .jsonl, .csv, .txt or .yaml.")
    if columns and ending not in TABLES:
        raise DataError(f"{shown(path)}: a {ending} file has no columns to choose from. Name none in the registry.")
    for row in rows:
        text, identifier, answer = row["text"], row.get("id"), row.get("answer")
        conversation: Conversation | None = row.get("conversation")
        if conversation and conversation.plain is not None:
            conversation = None
        identifier = "" if identifier is None else str(identifier)
        length = len(text) if conversation is None else sum(len(turn) for _, turn in conversation.pairs)
        if length > _LONGEST_TEXT:
            raise DataError(f"{shown(path)}: a prompt has {length} characters, which no model reads. Cut it.")
        yield Prompt(
            identifier if identifier.strip() else digest_of(conversation or text)[:12],
            text,
            answer.rpartition(_ANSWER_MARK)[2].strip() if answer and _ANSWER_MARK in answer else answer,
            row.get("category") or "",
            conversation,
        )


def _lines(path: Path) -> list[str]:
    """Return the lines of a file. str.splitlines would also break a JSON string at characters such as U+2028."""
    text = READER.text(path)
    return text.removesuffix("\n").split("\n") if text else []


def _json_lines(path: Path, columns: Columns) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        place = f"{shown(path)}, line {number}"
        if len(line) > _LONGEST_LINE:
            raise DataError(f"{place}: has {len(line)} characters, more than a prompt takes. Cut it.")
        row = READER.parse(line, place, finite=False)  # what is measured of a prompt may be NaN, which is not read
        value = _json_asked(row, columns, place) if isinstance(row, dict) else None
        conversation = conversation_in(value, place)
        text = asked_text(conversation) if conversation else value
        if not isinstance(text, str):
            raise DataError(
                f'{place}: expected an object with a string "{columns.text or "text"}", or a list "{MESSAGES}" of '
                "objects with role and content."
            )
        if not columns.keep(row, place):
            continue
        conversation = begun(text, conversation, row.get(PREFILL), place)
        answer, identifier = cell(row, columns.answer, place) if columns.answer else row.get("answer"), row.get("id")
        if answer is not None and (not isinstance(answer, str) or not answer.strip()):
            raise DataError(f'{place}: "{columns.answer or "answer"}" must be a string that is not empty.')
        if not isinstance(identifier, str | int | float | None) or (
            isinstance(identifier, float) and not math.isfinite(identifier)
        ):
            raise DataError(f'{place}: "id" must be a string or a number.')
        category = _json_category(row, place)
        yield {"text": text, "id": identifier, "answer": answer, "category": category, "conversation": conversation}


def _json_asked(row: Row, columns: Columns, place: str) -> Any:
    """Return what a *row* asks: a text, or a list of messages. A list of one text is its question."""
    names = ["text"] if "text" in row and not columns.text else columns.text_in(row)
    if isinstance(row.get(MESSAGES), list) and row[MESSAGES] and not columns.text:
        names.append(MESSAGES)
    if len(names) > 1:
        raise DataError(f"{place}: has {' and '.join(names)}, and one of them is asked. Say which (`column`).")
    value = row[names[0]] if names else None
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else value


def _json_category(row: Row, place: str) -> str:
    """Return the kind of harm of a *row*. What is called one by that name must be one."""
    category = _category(row.get("category"), place)
    named = row.get(category_column(row) or "")
    return named if isinstance(named, str) else category


def _category(value: Any, place: str) -> str:
    """Return a category as text. A list of kinds of harm, or an object that has a key for each, is one as well."""
    if isinstance(value, str):
        return value
    try:
        return "" if value in (None, [], {}) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DataError(f'{place}: "category" holds a number that is not finite. Correct or remove it.') from error


def _csv(path: Path, columns: Columns) -> Iterator[Row]:
    text, name = READER.text(path), shown(path)
    rows = csv_rows(text, name, separator_of(text, lambda header: bool(columns.text_in(header))))
    number, header = next(rows, (1, []))
    widest = len(header)
    while header and not header[-1]:  # Excel writes columns to the right that once held something
        del header[-1]
    asked = _text_column(header, columns, name, number)
    for number, cells in rows:
        place = f"{name}, line {number}"
        if not len(header) <= len(cells) <= widest or any(cells[len(header) :]):
            raise DataError(
                f"{place}: has {len(cells)} cells, and the header {len(header)}. Put a text with commas into quotation "
                "marks."
            )
        row = dict(zip(header, cells, strict=False))
        # What numbers its rows, as pandas does, names no column for it. Half a question is no number.
        if not row.get("", "0").isdecimal():
            raise DataError(f"{place}: its first cell has no column. Name one in the header.")
        if columns.keep(row, place):
            answer = cell(row, columns.answer, place) if columns.answer else None
            category = row.get(category_column(header) or "category")
            conversation = begun(row[asked], None, row.get(PREFILL), place)
            yield {
                "text": row[asked], "id": row.get("id"), "answer": answer, "category": category,
                "conversation": conversation,
            }  # fmt: skip


def _text_column(header: list[str], columns: Columns, name: str, number: int) -> str:
    """Return the column of a CSV file that is asked.

    Raises:
        DataError: there is none, several may be meant, or a name is missing or stands there twice.
    """
    names = columns.text_in(header)
    place = f"{name}, line {number}"
    if not names:
        wanted = columns.text or " or ".join(TEXT_COLUMNS)
        raise DataError(
            f"{name}: no column is named {wanted}; it has {str(header)[:200]}. Say which one is asked (`column`), and "
            "separate columns by commas, semicolons or tabs."
        )
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise DataError(f"{place}: two columns are named {twice[0][:80]!r}. Rename one.")
    if len(names) > 1:
        raise DataError(f"{place}: has {' and '.join(names)}, and one of them is asked. Say which (`column`).")
    if "" in header[1:]:
        raise DataError(f"{place}: column {header.index('', 1) + 1} has no name. Name it, or remove its comma.")
    return names[0]


def _seeds(path: Path) -> Iterator[Row]:
    """Yield the prompts of a list ``seeds``. Nothing is made of YAML's values but text: no dates, no numbers."""
    text = READER.text(path)
    if len(text) > _MOST_YAML:
        raise DataError(f"{shown(path)}: is more YAML than {_MOST_YAML // MIB} MiB. Write it as JSON lines.")
    try:
        events = iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        trees = [_tree(next(events), events) for event in events if isinstance(event, yaml.DocumentStartEvent)]
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{shown(path)}: not YAML ({' '.join(str(error).split())}).") from error
    table = trees[0][1] if len(trees) == 1 and isinstance(trees[0][1], dict) else {}
    _, seeds = table.get("seeds", (0, None))
    if not isinstance(seeds, list):
        raise DataError(f'{shown(path)}: no list "seeds" of prompts.')
    for number, (line, seed) in enumerate(seeds, 1):
        # What a file says of all of its seeds holds for one that says nothing else.
        about = table | seed if isinstance(seed, dict) else {}
        _, value = seed.get("value", (0, None)) if about else (0, None)
        if not isinstance(value, str):
            raise DataError(f'{shown(path)}: a seed has no text "value" (line {line}).')
        _, kind = about.get("data_type", (0, "text"))
        if kind not in ("text", None):
            raise DataError(
                f"{shown(path)}: seed {number} is no text (line {line}, data_type {str(kind)[:80]!r}). Remove it, and "
                "what is asked together with it."
            )
        _, kinds = about.get("harm_categories", (0, None))
        # PyRIT lists kinds of harm from the widest on. The first tells them apart best: few seeds share all of theirs.
        yield {"text": value, "category": kinds[0][1] if isinstance(kinds, list) and kinds else ""}


def _tree(event: Any, events: Iterator[Any], depth: int = 0) -> tuple[int, Any]:
    """Return the line of a YAML node and what is in it: a text, a list, a dictionary, or None for any other value.

    Raises:
        ValueError: it is an alias, too deep, or a mapping whose keys are no words or not different.
    """
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        raise ValueError(f"line {line}: an alias, *{str(event.anchor)[:80]}. Write out what it stands for")
    if depth > _DEEPEST_YAML:
        raise ValueError(f"line {line}: nested too deep")
    if isinstance(event, yaml.ScalarEvent):
        return line, event.value if _is_text(event) else None
    inside = itertools.takewhile(lambda inner: not isinstance(inner, yaml.CollectionEndEvent), events)
    if isinstance(event, yaml.SequenceStartEvent):
        return line, [_tree(inner, events, depth + 1) for inner in inside]
    table: dict[str, Any] = {}
    for key in inside:
        if not isinstance(key, yaml.ScalarEvent) or key.value in table:
            raise ValueError(f"line {key.start_mark.line + 1}: a key that is no word, or stands there twice")
        table[key.value] = _tree(next(events), events, depth + 1)
    return line, table


def _is_text(event: Any) -> bool:
    """Return whether a scalar is text: in quotation marks, or nothing that YAML takes for a number, a date or null."""
    tag = event.tag or _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
    return bool(tag in ("!", "tag:yaml.org,2002:str"))
