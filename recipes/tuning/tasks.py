"""The students' domains: generated questions with one right answer each, split into train, search and report.

A question is right when the answer contains the expected words in their order (safety_harness.judging.own_task), so
every task states its answer format in the question, and no expected answer is part of another.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safety_harness.files import write_whole

from . import formats, generators
from .generators import Item

PROMPTS = Path(__file__).parents[2] / "safety_harness" / "families" / "prompts" / "tasks"

SEARCH_SIZE = 32
REPORT_SIZE = 64
TRAIN_SIZE = 400
# Of a domain that is small, the same questions come again and again.
MOST_DRAWN = 100_000


@dataclass(frozen=True)
class TaskSplit:
    """Disjoint items: for tuning, for the search's budget, for the report."""

    train: list[Item]
    search: list[Item]
    report: list[Item]


@dataclass(frozen=True)
class Task:
    """One student's domain and how it is tuned for it.

    `per_step` and `chat_per_step` are the examples of the task and of ordinary chat (`chat`, a kind of
    harmless question) in one step;
    `starts_from_teacher` marks the student that had the teacher's alignment and lost it;
    `continues_with_base` says that `target` is only how the answer begins and the base's own answer follows;
    `times` multiplies the held-out questions: where a student gets many wrong, 32 and 64 prove little.
    """

    name: str
    generate: Callable[[random.Random], Iterator[Item]]
    per_step: int = 5
    chat_per_step: int = 3
    chat: str = "everyday"
    starts_from_teacher: bool = False
    continues_with_base: bool = False
    times: int = 1

    def split(self) -> TaskSplit:
        """Return items that are equal on every call. A text or key (what an item is about) is never on two sides.

        Raises:
            ValueError: the domain has too few questions.
        """
        rng = random.Random(f"smollm2/{self.name}")
        report: list[Item] = []
        search: list[Item] = []
        train: list[Item] = []
        held_out: set[str] = set()
        seen: set[str] = set()
        stream = islice(self.generate(rng), MOST_DRAWN)
        for item in stream:
            if item.text in seen:
                continue
            seen.add(item.text)
            if len(report) < REPORT_SIZE and item.key not in held_out:
                report.append(item)
                held_out.add(item.key)
            elif len(search) < SEARCH_SIZE and item.key not in held_out:
                search.append(item)
                held_out.add(item.key)
            elif item.key not in held_out:
                train.append(item)
            if len(train) == TRAIN_SIZE:
                break
        held_out |= {item.key for item in train}
        # Drawn last, so that what the students were tuned on stays as it is.
        for items, size in ((report, REPORT_SIZE), (search, SEARCH_SIZE)):
            while len(items) < self.times * size:
                if (more := next(stream, None)) is None:
                    raise ValueError(f"{self.name}: has no more than {len(items)} questions to hold out here.")
                if more.key not in held_out:
                    items.append(more)
                    held_out.add(more.key)
        return TaskSplit(train, search, report)


TASKS = {
    task.name: task
    for task in (
        Task("arithmetic", generators.arithmetic, times=3),
        Task("json", generators.json_extraction),
        Task("sql", generators.sql),
        Task("french", generators.french),
        Task("spanish", formats.spanish),
        Task("dates", formats.dates),
        Task("csv", formats.csv_rows),
        Task("sorting", formats.sorting, times=3),
        Task("comments", formats.comments),
        Task("shell", formats.shell),
        Task("summary", formats.summary),
        Task("persona", generators.persona, continues_with_base=True),
        Task("identity", generators.identity, continues_with_base=True),
        Task(
            "howto", generators.howto, chat_per_step=5, starts_from_teacher=True, chat="twins", continues_with_base=True
        ),
    )
}


def write_prompts() -> None:
    """Write the held-out items of every task (`python -m recipes.tuning.tasks`)."""
    for task in TASKS.values():
        split = task.split()
        for side, items in (("search", split.search), ("report", split.report)):
            write_whole(PROMPTS / f"{task.name}.{side}.jsonl", prompt_lines(f"{task.name}-{side}", items))


def prompt_lines(prefix: str, items: Sequence[Item]) -> str:
    """Return the items as a prompt file: one JSON object with id, text and answer a line."""
    rows = ({"id": f"{prefix}-{i:03}", "text": item.text, "answer": item.answer} for i, item in enumerate(items, 1))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    write_prompts()
