"""Read prompt files as checked, hashed prompt sets, and keep near-duplicates on one side of a split.

A file's ending names its format:

- ``.jsonl``: ``{"id", "text"}`` a line, with ``"answer"`` in a task's file, and ``"category"`` if there is one;
  instead of the text a conversation, ``"messages"``, and the first words of the answer, ``"prefill"``;
- ``.csv`` and ``.tsv``: a column ``text``, ``prompt`` or ``goal``, separated by commas, semicolons or tabs;
- ``.txt``: a prompt a line;
- ``.yaml`` and ``.prompt``: a list ``seeds`` of ``value``, as PyRIT writes it.

Tables may also have the columns of well-known sets (:mod:`safety_harness.registry.columns`).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_harness.conversation import Asked
from safety_harness.errors import DataError
from safety_harness.files import sha256_file, sha256_text
from safety_harness.reading import shown
from safety_harness.registry.columns import KNOWN, Columns
from safety_harness.registry.formats import READER, parse
from safety_harness.registry.formats import Prompt as Prompt
from safety_harness.registry.near import near_to
from safety_harness.text import question_key

_DIGEST = re.compile("[0-9a-f]{64}")
# What a search or a gate asks is far less. A larger file takes longer to check than a run should.
MOST_PROMPTS = 200_000


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, with a hash over ids, texts, answers and what is sent."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str

    def __hash__(self) -> int:
        return hash(self.sha256)  # of thousands of prompts, computed once

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @property
    def texts(self) -> list[str]:
        """The texts of the prompts, in order."""
        return [prompt.text for prompt in self.prompts]

    @property
    def said(self) -> list[str]:
        """All that the user says in each prompt, in order, by which questions are compared."""
        return [prompt.said for prompt in self.prompts]

    @property
    def sent(self) -> list[Asked]:
        """What a model is asked for each prompt, in order: its text, or the conversation that asks it."""
        return [prompt.sent for prompt in self.prompts]

    def first(self, count: int | None) -> PromptSet:
        """Return a set of the first *count* prompts, or of all when *count* is None."""
        if count is None or count >= len(self):
            return self
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
    """Make a set of *prompts* that is called *name*, and hash their ids, texts, answers and conversations."""
    kept = tuple(prompts)
    rows = [[p.id, p.text, p.answer, *([p.conversation.sha256] if p.conversation else [])] for p in kept]
    canonical = json.dumps(rows, ensure_ascii=False)
    return PromptSet(name, kept, sha256_text(canonical))


def read_prompts(
    path: Path, *, only: Path | None = None, columns: Columns = KNOWN, once_each: bool = False
) -> PromptSet:
    """Read and check a prompt file.

    Args:
        path: the file, whose ending names the format.
        only: a file with one sha256 digest a line. Only prompts whose text has one of these digests are kept, and
            each digest must have its prompt.
        columns: which columns and rows of a table are read.
        once_each: drop what repeats an earlier prompt instead of refusing it, as in a set that nobody here can mend.

    Raises:
        DataError: the file is missing, unreadable, malformed (the message names the line) or empty, or a prompt in it
            is empty or a duplicate.
    """
    READER.require(path)
    # Students of a family share their questions: a file is parsed once a process, unless it changes.
    return _read(path, sha256_file(path), only, sha256_text(READER.text(only)) if only else "", columns, once_each)


@functools.lru_cache(maxsize=64)
def _read(
    path: Path,
    digest: str,  # noqa: ARG001
    only: Path | None,
    only_digest: str,  # noqa: ARG001
    columns: Columns,
    once_each: bool,
) -> PromptSet:
    """Read and check a prompt file. The digests are those of the files now: with others it is read again."""
    prompts = list(itertools.islice(parse(path, columns), MOST_PROMPTS + 1))
    if len(prompts) > MOST_PROMPTS:
        raise DataError(f"{shown(path)}: holds more than {MOST_PROMPTS} prompts. Keep those that are asked.")
    if columns.where and not prompts:
        wanted = " and ".join(f"{name} = {' or '.join(values)}" for name, values in columns.where)
        raise DataError(f"{shown(path)}: no row has {wanted[:200]}. Correct `where`.")
    if once_each:
        first: dict[tuple[str, str | None], Prompt] = {}
        for prompt in prompts:
            first.setdefault((_key(prompt), prompt.answer), prompt)
        prompts = list(first.values())
    if only is not None:
        prompts = _select(path, prompts, only)
    _check(path, prompts)
    return prompt_set(path.name, prompts)


def as_documents(prompts: PromptSet) -> PromptSet:
    """Return *prompts* that are read as they stand, as prose is.

    Raises:
        DataError: one of them is a conversation.
    """
    if talks := [prompt.text for prompt in prompts if prompt.conversation]:
        raise DataError(f"{prompts.name}: {talks[0][:60]!r} is asked in a conversation, and prose is none. Remove it.")
    return prompts


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
    known = {question_key(said) for said in others.said}
    near = near_to(prompts.said, others.said, threshold)
    kept = [prompt for prompt, is_near in zip(prompts, near, strict=True) if not is_near]
    kept = [prompt for prompt in kept if question_key(prompt.said) not in known]
    if not kept:
        raise DataError(
            f"every prompt of {prompts.name} is a near-duplicate of one of {others.name}, so nothing is left to ask. "
            "Use other prompts, or raise near_duplicates in the registry."
        )
    return prompt_set(prompts.name, kept)


def check_disjoint(search: PromptSet, report: PromptSet) -> None:
    """Check that no question is on both splits, in whatever spelling.

    Raises:
        DataError: the splits share a question; the message shows both spellings of the first.
    """
    held_out = {question_key(said): said for said in report.said}
    shared = {key: said for said in search.said if (key := question_key(said)) in held_out}
    if shared:
        key, text = min(shared.items())
        raise DataError(
            f"{search.name} and {report.name} share {len(shared)} prompts, so the report would not be held "
            f"out; the first is {text[:80]!r} and {held_out[key][:80]!r}. Remove it from one of them."
        )


def _select(path: Path, prompts: Sequence[Prompt], only: Path) -> list[Prompt]:
    """Return the prompts whose text has a digest in the file *only*, which must have no other digests."""
    wanted = set()
    for number, line in enumerate(READER.text(only).split("\n"), 1):
        digest = line.strip().lower()
        if digest and not _DIGEST.fullmatch(digest):
            raise DataError(f"{shown(only)}, line {number}: not a sha256 digest. A list has one a line.")
        wanted |= {digest} - {""}
    chosen = [prompt for prompt in prompts if sha256_text(prompt.text) in wanted]
    if len({sha256_text(prompt.text) for prompt in chosen}) != len(wanted):
        raise DataError(
            f"{path}: holds {len(chosen)} of the {len(wanted)} prompts that {only} lists. "
            "The file is another version than the list was made for; get the pinned one."
        )
    return chosen


def _check(path: Path | str, prompts: Sequence[Prompt]) -> None:
    """Check that there are prompts, that none is empty, and that no question or id occurs twice."""
    if not prompts:
        raise DataError(f"{path}: holds no prompts.")
    asked: dict[str, int] = {}
    ids: dict[str, int] = {}
    for number, prompt in enumerate(prompts, 1):
        key, id_ = _key(prompt), prompt.id.strip()
        if not question_key(prompt.said):
            raise DataError(f"{path}: prompt {number} is empty. Fill it or remove it.")
        if key in asked:
            first, text = prompts[asked[key] - 1].said, prompt.said
            raise DataError(
                f"{path}: prompt {number} repeats prompt {asked[key]} ({text[:60]!r} and {first[:60]!r}). Remove one."
            )
        if id_ in ids:
            raise DataError(f"{path}: prompts {ids[id_]} and {number} share the id {id_[:80]!r}.")
        asked[key] = ids[id_] = number


def _key(prompt: Prompt) -> str:
    """Return what is equal where a set asks one thing twice. A question may be asked in several conversations."""
    if prompt.conversation is None:
        return question_key(prompt.text)
    turns = [[role, question_key(text)] for role, text in prompt.conversation.pairs]
    return json.dumps([turns, question_key(prompt.conversation.prefill)])
