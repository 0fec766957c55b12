"""Read prompt files as checked, hashed prompt sets, and keep near-duplicates on one side of a split.

A file's ending names its format:

- ``.jsonl``: ``{"id", "text"}`` a line, with ``"answer"`` in a task's file, and ``"category"`` if there is one;
- ``.csv``: a column ``text``, ``prompt`` or ``goal``;
- ``.txt``: a prompt a line;
- ``.yaml`` and ``.prompt``: a list ``seeds`` of ``value``, as PyRIT writes it.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.text import UNSPACED

TEXT_COLUMNS = ("text", "prompt", "goal")


@dataclass(frozen=True)
class Prompt:
    """One question or document. A task's question has a right ``answer``; ``category`` may name a kind of harm."""

    id: str
    text: str
    answer: str | None = None
    category: str = ""


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, with a hash over ids, texts and answers."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @property
    def texts(self) -> list[str]:
        """The texts of the prompts, in order."""
        return [prompt.text for prompt in self.prompts]

    def first(self, count: int | None) -> PromptSet:
        """Return a set of the first *count* prompts, or of all when *count* is None."""
        return prompt_set(self.name, self.prompts[:count])

    def after(self, count: int) -> PromptSet:
        """Return a set of all but the first *count* prompts."""
        return prompt_set(self.name, self.prompts[count:])

    def blocks(self, size: int) -> tuple[PromptSet, ...]:
        """Split the prompts, in order, into sets of *size*."""
        return tuple(prompt_set(self.name, batch) for batch in batches(self.prompts, size))


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Split *items*, in order, into runs of *size*."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def prompt_set(name: str, prompts: Iterable[Prompt]) -> PromptSet:
    """Make a set of *prompts* that is called *name*, and hash their ids, texts and answers."""
    kept = tuple(prompts)
    canonical = json.dumps([[p.id, p.text, p.answer] for p in kept], ensure_ascii=False)
    return PromptSet(name, kept, sha256_text(canonical))


def read_prompts(path: Path, *, only: Path | None = None) -> PromptSet:
    """Read and check a prompt file.

    Args:
        path: the file, whose ending names the format.
        only: a file with one sha256 digest a line. Only prompts whose text has one of these digests are kept, and
            each digest must have its prompt.

    Raises:
        DataError: the file is missing, unreadable, malformed (the message names the line) or empty, or a prompt in it
            is empty or a duplicate.
    """
    prompts = list(_parse(path, _read_text(path)))
    if only is not None:
        prompts = _select(path, prompts, only)
    _check(path, prompts)
    return prompt_set(path.name, prompts)


def in_turn(sets: Sequence[PromptSet]) -> PromptSet:
    """Mix *sets*: the first prompt of each, then the second of each, until every set is used up.

    Raises:
        DataError: two sets share a prompt or an id.
    """
    name = " and ".join(prompts.name for prompts in sets)
    rounds = itertools.zip_longest(*sets)
    mixed = [prompt for some in rounds for prompt in some if prompt is not None]
    _check(name, mixed)
    return prompt_set(name, mixed)


def without_near_duplicates(prompts: PromptSet, others: PromptSet, threshold: float) -> PromptSet:
    """Drop the prompts that are in *others*, or more similar than *threshold* to one of them (Jaccard index of words).

    Raises:
        DataError: nothing is left.
    """
    other_texts = {_normalised(prompt) for prompt in others}
    other_words = [_words(prompt.text) for prompt in others]

    def is_near(prompt: Prompt) -> bool:
        prompt_words = _words(prompt.text)
        return _normalised(prompt) in other_texts or any(
            _jaccard(prompt_words, words) > threshold for words in other_words
        )

    kept = [prompt for prompt in prompts if not is_near(prompt)]
    if not kept:
        raise DataError(
            f"every prompt of {prompts.name} is a near-duplicate of one of {others.name}, so nothing is left to ask. "
            "Use other prompts, or raise near_duplicates in the registry."
        )
    return prompt_set(prompts.name, kept)


def check_disjoint(search: PromptSet, report: PromptSet) -> None:
    """Check that no prompt is on both splits.

    Raises:
        DataError: the splits share a prompt.
    """
    shared = set(map(_normalised, search)) & set(map(_normalised, report))
    if shared:
        raise DataError(
            f"{search.name} and {report.name} share {len(shared)} prompts, so the report would not be held "
            f"out; the first is {sorted(shared)[0][:80]!r}. Remove it from one of them."
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets begin a CSV with a byte order mark
    except FileNotFoundError:
        raise DataError(f"{path}: no such prompt file. Check the path in the registry.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}). Convert it to UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def _parse(path: Path, text: str) -> Iterator[Prompt]:
    match path.suffix.lower():
        case ".jsonl":
            yield from _parse_jsonl(path, text)
        case ".csv":
            yield from _parse_csv(path, text)
        case ".txt":
            yield from (_prompt(line) for line in _lines(text))
        case ".yaml" | ".yml" | ".prompt":
            yield from _parse_seeds(path, text)
        case other:
            raise DataError(f"{path}: format {other!r} is not known; use .jsonl, .csv, .txt or .yaml.")


def _lines(text: str) -> list[str]:
    """Return the lines of *text*. str.splitlines would also break a JSON string at characters such as U+2028."""
    return text.removesuffix("\n").split("\n") if text else []


def _parse_jsonl(path: Path, text: str) -> Iterator[Prompt]:
    for number, line in enumerate(_lines(text), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg}).") from error
        if not _is_unicode(row):
            raise DataError(f"{path}, line {number}: holds half of a character (a lone surrogate). Write it whole.")
        if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
            raise DataError(f'{path}, line {number}: expected an object with a string "text".')
        answer = row.get("answer")
        if answer is not None and (not isinstance(answer, str) or not answer.strip()):
            raise DataError(f'{path}, line {number}: "answer" must be a string that is not empty.')
        yield _prompt(row["text"], row.get("id"), answer, row.get("category"))


def _parse_csv(path: Path, text: str) -> Iterator[Prompt]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    column = next((name for name in TEXT_COLUMNS if name in (reader.fieldnames or ())), None)
    if column is None:
        raise DataError(f"{path}: no column is named {' or '.join(TEXT_COLUMNS)}; it has {reader.fieldnames}.")
    try:
        for row in reader:
            yield _prompt(row[column] or "", row.get("id"), category=row.get("category"))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + 1}: not CSV ({error}).") from error


def _parse_seeds(path: Path, text: str) -> Iterator[Prompt]:
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML ({error}).") from error
    seeds = table.get("seeds") if isinstance(table, Mapping) else None
    if not isinstance(seeds, Sequence):
        raise DataError(f'{path}: no list "seeds" of prompts.')
    for seed in seeds:
        if not isinstance(seed, Mapping) or not isinstance(seed.get("value"), str):
            raise DataError(f'{path}: a seed has no text "value": {str(seed)[:80]!r}.')
        if not _is_unicode(seed["value"]):
            raise DataError(f"{path}: a seed holds half of a character (a lone surrogate): {seed['value'][:80]!r}.")
        yield _prompt(seed["value"])


def _is_unicode(value: object) -> bool:
    """Return whether all text in a value of JSON can be encoded. Half of an emoji that was cut in two cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _prompt(text: str, identifier: object = None, answer: str | None = None, category: object = None) -> Prompt:
    id_ = str(identifier) if identifier is not None else sha256_text(text)[:12]
    return Prompt(id_, text, answer, str(category or ""))


def _select(path: Path, prompts: Sequence[Prompt], only: Path) -> list[Prompt]:
    """Return the prompts whose text has a digest in the file *only*, which must have no other digests."""
    wanted = {line.strip() for line in _read_text(only).splitlines() if line.strip()}
    chosen = [prompt for prompt in prompts if sha256_text(prompt.text) in wanted]
    if len({sha256_text(prompt.text) for prompt in chosen}) != len(wanted):
        raise DataError(
            f"{path}: holds {len(chosen)} of the {len(wanted)} prompts that {only} lists. "
            "The file is another version than the list was made for; get the pinned one."
        )
    return chosen


def _check(path: Path | str, prompts: Sequence[Prompt]) -> None:
    """Check that there are prompts, that none is empty, and that no text or id occurs twice."""
    if not prompts:
        raise DataError(f"{path}: holds no prompts.")
    texts: dict[str, int] = {}
    ids: dict[str, int] = {}
    for number, prompt in enumerate(prompts, 1):
        text = prompt.text.strip()
        if not text:
            raise DataError(f"{path}: prompt {number} is empty. Fill it or remove it.")
        if text in texts:
            raise DataError(f"{path}: prompt {number} repeats prompt {texts[text]} ({text[:60]!r}). Remove one.")
        if prompt.id in ids:
            raise DataError(f"{path}: prompts {ids[prompt.id]} and {number} share the id {prompt.id!r}.")
        texts[text] = ids[prompt.id] = number


def _normalised(prompt: Prompt) -> str:
    """Return the text without the case and the outer white space, which make no other prompt."""
    return prompt.text.strip().lower()


def _words(text: str) -> frozenset[str]:
    """Return the words of *text*, in any script. In a script without spaces every character is a word."""
    return frozenset(re.findall(rf"[{UNSPACED}]|(?:[^\W_{UNSPACED}]|')+", text.casefold()))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
