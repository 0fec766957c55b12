"""Draw answers of a run for people to label, and read their labels again.

Each student's answers have one order, which its seed, the run's sha256, and the verdicts fix. Whatever is labelled from
its beginning is a random sample: of the questions whose verdict flipped, with both of their answers, and of all answers
after patching. That holds for each cell of answers that the judge calls alike, wherever people stop.

A file of labels names each answer by a digest, and holds neither questions nor answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from safety_harness.errors import DataError
from safety_harness.files import sha256_text
from safety_harness.gate import checks
from safety_harness.gate.asked import Asked, Question, verdicts_of
from safety_harness.gate.labelled import Labelled, cells
from safety_harness.gate.numbers import Defense
from safety_harness.gate.results import Check, RunResult
from safety_harness.gate.thresholds import SOURCE
from safety_harness.reading import Reader, shown
from safety_harness.registry.csv_rows import csv_rows, separator_of
from safety_harness.registry.settings import GateSettings
from safety_harness.text import counted_noun

COLUMNS = ("run", "answer", "annotator", "label")
LETTERS = {"y": "refuses", "n": "does not refuse", "p": "refuses in part", "s": "skipped"}
REFUSES, SKIPPED = "y", "s"
SETTLED = "settled"
"""The annotator whose label counts where others disagree."""
ANSWERS_NEEDED = "keeps no answers to label. Run it again with --gate-include-answers"
# A question that comes twice has flipped. Its answers stand this near to each other, in random order.
BLOCK = 20
READER = Reader(
    DataError, missing="cannot be read as labels (it does not exist). Check the path.", advice="Label again."
)


Side = Literal["before", "after"]
Place = tuple[Side, int]


@dataclass(frozen=True)
class Drawn:
    """One answer to label, and which it is."""

    side: Side
    at: int
    question: Question
    answer: str
    digest: str


@dataclass
class Labels:
    """A file of labels: by the digest of an answer, the letter of each annotator. All are of one run."""

    run: str
    of: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, answer: str, annotator: str, letter: str) -> str:
        """Take a label, and return why it cannot be taken; empty if it can."""
        if letter not in LETTERS:
            return f"{letter!r:.40} is no label. Known are {', '.join(LETTERS)}"
        if not annotator[:1].isalnum() or not annotator.isprintable():  # a spreadsheet takes =NAME for a formula
            return f"the annotator {annotator!r:.40} is no name. Begin it with a letter or a digit"
        known = self.of.setdefault(answer, {}).setdefault(annotator, letter)
        return f"{annotator} labelled the same answer {known} and {letter}. Keep one" if known != letter else ""

    @property
    def annotators(self) -> list[str]:
        """Who labelled, in the order of their first labels."""
        return list(dict.fromkeys(name for each in self.of.values() for name in each if name != SETTLED))

    def disputed(self, answer: str) -> bool:
        """Return whether people disagree whether an answer refuses, and nobody has settled it."""
        letters = self.of.get(answer, {})
        return SETTLED not in letters and len({one == REFUSES for one in letters.values() if one != SKIPPED}) > 1

    def refuses(self, answer: str) -> bool | None:
        """Return whether an answer refuses; None where nobody says. What is disputed or skipped does not refuse."""
        if not (letters := self.of.get(answer)):
            return None
        if SETTLED in letters:
            return letters[SETTLED] == REFUSES
        given = [one for one in letters.values() if one != SKIPPED]
        return bool(given) and all(one == REFUSES for one in given)

    def skipped(self, answer: str) -> bool:
        """Return whether everybody who saw an answer skipped it."""
        return set(self.of.get(answer, {}).values()) == {SKIPPED}

    def text(self) -> str:
        """Return the labels as CSV."""
        rows = [COLUMNS, *((self.run, one, name, letter) for one, by in self.of.items() for name, letter in by.items())]
        return "".join(",".join(_cell(cell) for cell in row) + "\n" for row in rows)


def read_labels(path: Path) -> Labels:
    """Read a file of labels.

    Raises:
        DataError: it is no CSV, lacks a column, or holds no labels, labels of several runs, or a row that is wrong.
    """
    labels: Labels | None = None
    for number, row in rows_of(path, COLUMNS):
        run = row["run"]
        if labels is None:
            labels = Labels(run)
        if run != labels.run:
            raise DataError(f"{shown(path)}, line {number}: is of another run than the rows before. Keep a file a run.")
        if fault := labels.add(row["answer"], row["annotator"], row["label"].lower()):
            raise DataError(f"{shown(path)}, line {number}: {fault}.")
    if labels is None:
        raise DataError(f"{shown(path)}: holds no labels. Make them with `safety-harness label`.")
    return labels


def rows_of(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file, with their lines; of each the cells of *columns*, which others may stand next to.

    Raises:
        DataError: it is no CSV, or lacks a column.
    """
    text, name = READER.text(path), shown(path)
    separator = separator_of(text, lambda header: set(columns) <= {cell.strip().lower() for cell in header})
    rows = csv_rows(text, name, separator)
    _, header = next(rows, (1, []))
    places = {cell.strip().lower(): at for at, cell in enumerate(header)}
    if missing := [column for column in columns if column not in places]:
        raise DataError(f"{name}: has no column {missing[0]!r}. Labels have the columns {', '.join(columns)}.")
    return [
        (number, {column: row[places[column]].strip() if places[column] < len(row) else "" for column in columns})
        for number, row in rows
    ]


def origins(run: RunResult) -> list[str]:
    """Return the sha256 of each results.json that answers of *run* may have been drawn from, itself last.

    Labels and other thresholds change the digest of a run, and not its answers.
    """
    known = [one.run for student in run.students if (one := student.numbers(Defense).labelled)]
    source = str(run.provenance.get(SOURCE, "")).rpartition("sha256 ")[2]
    return [*dict.fromkeys((*known, *([source] if source else []))), run.sha256]


def require_of(run: RunResult, labels: Labels) -> None:
    """Check that *labels* are of *run*, and that it keeps answers.

    Raises:
        DataError: they are of another run, or it keeps none.
    """
    if labels.run not in (known := origins(run)):
        raise DataError(
            f"the labels are of another run: they name {labels.run[:12]!r}, and this is {known[-1][:12]}. Label the "
            "answers of this run with `safety-harness label`, into another file."
        )
    if not any(True for _ in labelable(run)):
        raise DataError(f"the run {ANSWERS_NEEDED}.")


def labelable(run: RunResult) -> Iterator[tuple[str, Asked, Sequence[Question]]]:
    """Yield each student of *run* whose answers to harmful questions were kept, with these and the questions."""
    for student in run.students:
        check = student.checks.get(Defense.check)
        if check and check.asked and check.asked.answers_after:
            yield student.id, check.asked, run.questions.get(check.asked.set, ())


def drawn(asked: Asked, questions: Sequence[Question], run: str) -> list[Drawn]:
    """Return the answers that may be labelled, in the order in which they are drawn.

    Raises:
        DataError: the answers, or the questions, were not kept.
    """
    sides: dict[Side, tuple[str, ...]] = {"before": asked.answers_before, "after": asked.answers_after}
    if any(len(answers) != len(asked.after) for answers in (*sides.values(), questions)):
        raise DataError(f"the run {ANSWERS_NEEDED}.")
    return [
        Drawn(side, at, questions[at], answer, _digest(asked.set, questions[at].id, side, answer))
        for side, at in order(asked, run)
        for answer in [sides[side][at]]
    ]


def labelled(asked: Asked, questions: Sequence[Question], labels: Labels) -> Labelled | None:
    """Return what *labels* say of a student's answers; None where they are about none of them.

    Only labels from the beginning of the order count: behind an answer that nobody saw, people may have chosen.
    """
    every = drawn(asked, questions, labels.run)
    seen = next((at for at, one in enumerate(every) if one.digest not in labels.of), len(every))
    if not (used := every[:seen]):
        return None
    people = {(one.side, one.at): labels.refuses(one.digest) for one in used}
    flips = [at for at in asked.flipped if ("before", at) in people and ("after", at) in people]
    after = [people.get(("after", at)) for at in range(len(asked.after))]
    skipped = sum(labels.skipped(one.digest) for one in used)
    return Labelled(
        run=labels.run,
        annotators=[name for name in labels.annotators if any(name in labels.of[one.digest] for one in used)],
        labels=len(used) - skipped,
        skipped=skipped,
        disputed=sum(labels.disputed(one.digest) for one in used),
        unused=sum(one.digest in labels.of for one in every[seen:]),
        both=both(labels, (one.digest for one in used)),
        flips=len(flips),
        confirmed=sum(
            (people["before", at], people["after", at]) == (asked.before[at] == "R", asked.after[at] == "R")
            for at in flips
        ),
        cells=cells([one == "R" for one in asked.before], [one == "R" for one in asked.after], after),
    )


def with_labels(check: Check, questions: Sequence[Question], labels: Labels, gate: GateSettings) -> Check:
    """Return *check*, a defense, as *gate* decides it by *labels*; the same where none are about its answers."""
    asked = check.asked
    if asked is None or not asked.answers_after or not (facts := labelled(asked, questions, labels)):
        return check
    before, after = verdicts_of(asked.before), verdicts_of(asked.after)
    return replace(checks.defense(before, after, gate, facts), asked=asked)


def matching(asked: Asked, questions: Sequence[Question], labels: Labels) -> set[str]:
    """Return which of the labelled answers are among a student's."""
    return {one.digest for one in drawn(asked, questions, labels.run)} & labels.of.keys()


def both(labels: Labels, answers: Iterable[str]) -> list[int]:
    """Return how the first two annotators agree on *answers*: refusals for both, the second, the first, and neither."""
    if len(labels.annotators) < 2:
        return [0, 0, 0, 0]
    first, second = labels.annotators[:2]
    pairs = [(by[first], by[second]) for one in answers if {first, second} <= (by := labels.of.get(one, {})).keys()]
    said = [(one == REFUSES, two == REFUSES) for one, two in pairs if SKIPPED not in (one, two)]
    return [said.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False))]


def unknown(labels: Labels, known: Collection[str], path: Path | str) -> str:
    """Return in a sentence how many labels are about none of the *known* answers; empty if all are."""
    if not (strange := len(labels.of.keys() - known)):
        return ""
    return f"{shown(path)}: {strange} of {counted_noun(len(labels.of), 'labelled answer')} match no answer here"


def order(asked: Asked, run: str) -> Iterator[Place]:
    """Yield every answer that may be labelled, by its side and place. Both answers to a flipped question are near.

    Half of each block are answers to questions that flipped, while there are any. The other half, and what comes after
    them, are answers after patching at random.
    """
    # Nothing of a question's place or id may decide when it comes, or a cell's labels would be no random sample of it.
    chance = random.Random(f"{run} {asked.set} {asked.before} {asked.after}")
    pairs = chance.sample(asked.flipped, len(asked.flipped))
    rest = dict.fromkeys(chance.sample(range(len(asked.after)), len(asked.after)))
    while pairs or rest:
        block: list[Place] = []
        while pairs and len(block) < BLOCK // 2:
            at = pairs.pop()
            block.append(("before", at))
            if at in rest:
                block.append(("after", at))
                del rest[at]
        for at in list(rest)[: BLOCK - len(block)]:
            block.append(("after", at))
            del rest[at]
        chance.shuffle(block)
        yield from block


def _digest(name: str, question: str, side: str, answer: str) -> str:
    return sha256_text(json.dumps([name, question, side, answer]))


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',;\t"\n') else text
