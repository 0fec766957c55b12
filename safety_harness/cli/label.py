"""Run ``safety-harness label``: have people label answers of a run, without knowing whose they are or how judged."""

from __future__ import annotations

import argparse
import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safety_harness.cli.common import Commands, Parser, command, whole
from safety_harness.errors import ConfigError, DataError, did_you_mean
from safety_harness.reading import shown
from safety_harness.text import LONGEST_SHOWN, counted_noun, visible

if TYPE_CHECKING:
    from safety_harness.gate.labels import Drawn, Labels
    from safety_harness.gate.results import RunResult

STOP = "q"
_KNOWN = "y (refuses), n (does not), p (in part) or s (skip)"
_ASK = "y refuses / n does not / p in part / s skip / q stop and keep: "
# Of a CSV for a spreadsheet. The first two say which answer a row is about; whoever labels fills the last.
SHEET = ("run", "answer", "question", "text", "label")
# Faults of a file that are named one by one.
NAMED = 5


def add_label(commands: Commands[Parser]) -> None:
    """Add the command ``label``."""
    label = command(
        commands,
        "label",
        "label answers of a run by hand, so that its DSR rests on people and not on the judge alone",
        examples=[
            "reports/latest/results.json",
            "results.json --student our-release --k 25 --annotator second",
            "results.json --csv sheet.csv",
            "results.json --read sheet.csv",
            "results.json --annotator settled",
        ],
        more="Answers come in random order; whose they are and how they were judged is not shown. Labels that are "
        "there are not asked again. The annotator `settled` is asked only where others disagree.",
    )
    label.set_defaults(run=_label)
    label.add_argument("results", type=Path, help="results.json of a run with --gate-include-answers")
    label.add_argument(
        "--student", action="append", default=[], help="a student (its name, or family/name); repeatable"
    )
    label.add_argument("--k", type=whole, default=50, metavar="K", help="answers of each student (default: 50)")
    label.add_argument(
        "--out", type=Path, default=Path("labels.csv"), help="file of labels to go on with (default: labels.csv)"
    )
    label.add_argument("--annotator", default="first", metavar="NAME", help="who labels (default: first)")
    way = label.add_mutually_exclusive_group()
    way.add_argument("--csv", type=Path, metavar="SHEET", help="write the answers for a spreadsheet, and ask nothing")
    way.add_argument("--read", type=Path, metavar="SHEET", help="take the labels of such a sheet")


def _label(options: argparse.Namespace) -> int:
    from safety_harness.files import try_to_write
    from safety_harness.gate.labels import Labels, origins, read_labels, require_of
    from safety_harness.gate.reading import read_results

    run = read_results(options.results)
    labels = read_labels(options.out) if options.out.exists() else Labels(origins(run)[0])
    require_of(run, labels)
    if not options.annotator[:1].isalnum() or not options.annotator.isprintable():
        raise ConfigError(f"--annotator {options.annotator!r:.40} is no name. Begin it with a letter or a digit.")
    for place in filter(None, (options.csv, options.out)):
        try_to_write(place)  # before a person has worked for nothing
    sample = _sample(run, options, labels)
    if options.csv:
        return _write_sheet(sample, labels, options)
    if options.read:
        return _read_sheet(sample, labels, options)
    _ask(sample, labels, options)
    _conclude(sample, labels, options)
    return 0


def _sample(run: RunResult, options: argparse.Namespace, labels: Labels) -> list[Drawn]:
    """Return the answers to label: those of each student in their order, and the students in a random one.

    Raises:
        ConfigError: a student is not known, or the run keeps none of its answers.
    """
    from safety_harness.gate.labels import ANSWERS_NEEDED, SETTLED, drawn, labelable

    ids = [student.id for student in run.students]
    kept = {name: (asked, questions) for name, asked, questions in labelable(run)}
    wanted = [_student(name, ids) for name in options.student] or list(kept)
    if missing := [name for name in wanted if name not in kept]:
        raise ConfigError(f"{missing[0]}: the run {ANSWERS_NEEDED}.")
    order = {name: drawn(*kept[name], labels.run)[: options.k] for name in dict.fromkeys(wanted)}
    if options.annotator == SETTLED:
        order = {name: [one for one in each if labels.disputed(one.digest)] for name, each in order.items()}
    turns = [name for name, each in order.items() for _ in each]
    random.Random(labels.run).shuffle(turns)
    left = {name: iter(each) for name, each in order.items()}
    sample = list({one.digest: one for name in turns for one in [next(left[name])]}.values())
    flipped = {name: set(kept[name][0].flipped) for name in order}
    of_pairs = sum(one.at in flipped[name] for name, each in order.items() for one in each)
    print(
        f"{counted_noun(len(sample), 'answer')} of {counted_noun(len(order), 'student')}: {of_pairs} to questions "
        f"whose verdict the patch changed, {len(turns) - of_pairs} to others. Whose they are is not shown."
    )
    return sample


def _student(name: str, ids: Sequence[str]) -> str:
    """Return the whole id of a student.

    Raises:
        ConfigError: none, or several, have this name.
    """
    found = [one for one in ids if name in (one, one.partition("/")[2])]
    if len(found) == 1:
        return found[0]
    near = did_you_mean(name, [*ids, *(one.partition("/")[2] for one in ids)])
    known = near or f" The run has {', '.join(ids[:NAMED])}."
    raise ConfigError(f"--student {name!r:.80}: {'several students have this name' if found else 'not known'}.{known}")


def _open(sample: Sequence[Drawn], labels: Labels, annotator: str) -> list[Drawn]:
    """Return the answers that *annotator* has not seen."""
    return [one for one in sample if annotator not in labels.of.get(one.digest, {})]


def _ask(sample: Sequence[Drawn], labels: Labels, options: argparse.Namespace) -> None:
    """Ask for a label of each answer that has none of this annotator's yet. Each is kept at once."""
    from safety_harness.files import write_whole

    open_ones = _open(sample, labels, options.annotator)
    for number, one in enumerate(open_ones, 1):
        print(
            f"\n[{number} of {len(open_ones)}]\nQuestion: {visible(one.question.text)}\nAnswer:\n{_shown(one.answer)}"
        )
        if (letter := _letter()) == STOP:
            break
        labels.add(one.digest, options.annotator, letter)
        write_whole(options.out, labels.text())


def _letter() -> str:
    """Return what a person types: a label, or that it is enough, as at the end of the input."""
    from safety_harness.gate.labels import LETTERS

    while True:
        try:
            typed = input(_ASK).strip().lower()
        except EOFError:
            return STOP
        if typed in (*LETTERS, STOP):
            return typed
        print(f"{visible(typed)[:40]!r} is none of them.")


def _shown(text: str) -> str:
    """Return an answer as a terminal can show it, in its lines."""
    return "\n".join(f"  {visible(line)}" for line in text[:LONGEST_SHOWN].splitlines())


def _write_sheet(sample: Sequence[Drawn], labels: Labels, options: argparse.Namespace) -> int:
    """Write the answers that this annotator has not labelled as CSV."""
    from safety_harness.files import write_whole
    from safety_harness.report.spreadsheet import safe

    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(SHEET)
    open_ones = _open(sample, labels, options.annotator)
    writer.writerows((labels.run, one.digest, safe(one.question.text), safe(one.answer), "") for one in open_ones)
    write_whole(options.csv, stream.getvalue())
    print(f"{options.csv}: fill the column label with {_KNOWN}, then read it with --read {options.csv}.")
    return 0


def _read_sheet(sample: Sequence[Drawn], labels: Labels, options: argparse.Namespace) -> int:
    """Take the labels of a sheet, and keep them.

    Raises:
        DataError: some rows are wrong. Those of the others are kept.
    """
    from safety_harness.files import write_whole
    from safety_harness.gate.labels import rows_of

    rows = rows_of(options.read, ("run", "answer", "label"))
    if not rows or not any(row["label"] for _, row in rows):
        raise DataError(f"{shown(options.read)}: no row has a label. Fill the column label with {_KNOWN}.")
    known = {one.digest for one in sample}
    taken, faults = 0, list[str]()
    for number, row in rows:
        if not row["label"]:
            continue
        fault = "is of another run" if row["run"] != labels.run else ""
        fault = fault or ("is about no answer that was drawn" if row["answer"] not in known else "")
        if fault := fault or labels.add(row["answer"], options.annotator, row["label"].lower()):
            faults.append(f"line {number}: {fault}")
        taken += not fault
    if taken:
        write_whole(options.out, labels.text())
    _conclude(sample, labels, options)
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DataError(
            f"{shown(options.read)}: {counted_noun(len(faults), 'row')} not taken, and {taken} kept in {options.out}. "
            f"{'; '.join(faults[:NAMED])}{more}. Mend them, and read the sheet again."
        )
    return 0


def _conclude(sample: Sequence[Drawn], labels: Labels, options: argparse.Namespace) -> None:
    """Print how many answers are labelled, how people agree, and what to run next. Nothing of an answer is shown."""
    from safety_harness.gate.labels import SETTLED, both
    from safety_harness.judging.calibration import Calibration

    digests = [one.digest for one in sample]
    seen = sum(options.annotator in labels.of.get(one, {}) for one in digests)
    print(f"\n{options.out}: {options.annotator} has seen {seen} of {len(sample)}.")
    # Whoever settles is asked only where the others disagree.
    if options.annotator != SETTLED and (agreement := Calibration(*both(labels, digests))).n:
        first, second = labels.annotators[:2]
        kappa = "–" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        print(f"{first} and {second} agree on {agreement.accuracy:.2f} of {agreement.n} answers, kappa {kappa}.")
    if disputed := sum(map(labels.disputed, digests)):
        print(f"{disputed} are labelled differently. They count as no refusal until settled: --annotator settled.")
    if labels.of:
        print(f"Next: safety-harness report {options.results} --labels {options.out}")


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
