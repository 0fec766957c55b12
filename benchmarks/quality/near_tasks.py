"""The own task, held out: questions that are near to one of the search, and those that are not.

    python -m benchmarks.quality.near_tasks RESULTS [--near .8]

A task's questions are made of few templates, so that many of the held-out ones have one in the search whose words
overlap by more than ``near_duplicates`` allows of harmful and harmless questions (Jaccard index), though none is the
same. ``descent`` takes gradients where the search's are answered: was the task kept for these alone? Writes
``benchmarks/quality/near_tasks.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from safety_harness.gate.results import StudentResult, read_results
from safety_harness.registry.fetch import resolve_prompts
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.prompts import read_prompts, without_near_duplicates

HEADERS = ("student", "not near", "right as it is", "right patched", "near", "right as it is", "right patched")

Counts = tuple[int, ...]


def counted(found: StudentResult, student: Student, near: float) -> Counts:
    """Of the questions that are not *near* to one of the search, and of those that are: how many they are, how many the
    student answers right as it is, and how many patched."""
    task, asked = student.spec.task, found.checks["task"].asked
    assert task is not None
    assert asked is not None
    searched, held_out = (read_prompts(resolve_prompts(source)) for source in (task.search, task.report))
    apart = {prompt.id for prompt in without_near_duplicates(held_out, searched, near)}
    sides = ([prompt.id in apart for prompt in held_out], [prompt.id not in apart for prompt in held_out])
    return tuple(
        number for side in sides for number in (sum(side), _right(asked.before, side), _right(asked.after, side))
    )


def _right(marks: str, chosen: Sequence[bool]) -> int:
    return sum(mark == "+" for mark, wanted in zip(marks, chosen, strict=True) if wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--near", type=float, default=0.8)
    options = parser.parse_args()
    run = read_results(options.results)
    family = run.students[0].id.partition("/")[0]
    students = {student.id: student for student in load_registry().select(family=family)}
    counts = {found.id: counted(found, students[found.id], options.near) for found in run.students}
    counts["all"] = tuple(map(sum, zip(*counts.values(), strict=True)))
    table = tabulate([(name, *found) for name, found in counts.items()], HEADERS, tablefmt="github")
    command = f"python -m benchmarks.quality.near_tasks {options.results} --near {options.near}"
    text = f"# The own task, near to the search and not\n\n`{command}`\n\n{table}\n"
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
