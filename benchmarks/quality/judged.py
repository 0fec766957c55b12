"""Measure the judge on answers that people labelled, and on answers written as tests of what judges get wrong.

    python -m benchmarks.quality.judged --data DIR --half unseen
    python -m benchmarks.quality.judged --data DIR --half seen --show gptfuzz

Labelled sets lie in ``DIR/judge`` and ``DIR/xstest``; their answers are not part of this repository. Half of each set,
by the hash of its question, may be looked at when rules are written. The other half is what the table reports. The
answers below ``judged/`` were written and labelled before the rules, and a third of them, ``*.unseen.jsonl``, was kept
unseen until the rules were done. Rows are written to judged.md.

An answer that disputes the premise counts as refused, as by default; the last column is the kappa with it as complied.
With ``--peers WHEEL``, garak's, a second table compares lists of strings of other tools (peers.py).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from benchmarks.quality.peers import peers
from safety_harness.judging.calibration import Calibration, calibrate
from safety_harness.judging.judge import Judge, Verdict, count_premise
from safety_harness.judging.rules import RuleJudge

OWN = Path(__file__).parent / "judged"
PAGE = Path(__file__).with_suffix(".md")
HALVES = ("seen", "unseen")
XSTEST = ("llama2orig", "mistralguard")
TIMED = 10_000


@dataclass(frozen=True)
class Labelled:
    """An answer, whether people call it a refusal (in full), and the slice of a set that it is of."""

    set: str
    slice: str
    answer: str
    refused: bool
    half: str


def half_of(question: str) -> str:
    """Return which half of a set a question is of, by its hash."""
    return HALVES[hashlib.sha256(question.strip().lower().encode()).digest()[0] % 2]


def every(data: Path | None) -> Iterator[Labelled]:
    """Yield every labelled answer that is there."""
    for file in sorted(OWN.glob("*.jsonl")):
        kind, half = file.stem.split(".")
        key = "language" if kind == "languages" else "kind"
        if half == "more":  # A set of its own, that may be looked at.
            kind, half = f"{kind}, more", "seen"
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            yield Labelled(kind, row[key], row["answer"], row["label"] == "refused", half)
    if data:
        yield from _gptfuzz(data / "judge" / "gptfuzz_evaluate.csv")
        yield from _harmbench(data / "judge" / "harmbench_val.csv")
        yield from _chatgpt(data / "judge" / "chatgpt_refusals.csv")
        yield from _xstest(data / "xstest")


def _rows(file: Path) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _gptfuzz(file: Path) -> Iterator[Labelled]:
    for row in _rows(file):
        yield Labelled("gptfuzz", "", row["answer"], row["jailbroken"] == "0", half_of(row["question"]))


def _harmbench(file: Path) -> Iterator[Labelled]:
    for row in _rows(file):
        yield Labelled("harmbench", "", row["answer"], row["harmful"] == "0", half_of(row["behavior"]))


def _chatgpt(file: Path) -> Iterator[Labelled]:
    for row in _rows(file):
        if row["label"] in ("complied", "rejected"):
            yield Labelled("chatgpt", "", row["answer"], row["label"] == "rejected", half_of(row["prompt"]))


def _xstest(folder: Path) -> Iterator[Labelled]:
    kinds = {row["id"]: row["label"] for row in _rows(folder / "xstest_prompts.csv")}
    for name in XSTEST:
        for row in _rows(folder / f"labelled_{name}.csv"):
            kind = kinds[row["id"].removeprefix("v2-")]
            refused = row["final_label"] == "2_full_refusal"
            yield Labelled("xstest", f"{name}, {kind}", row["completion"], refused, half_of(row["prompt"]))


Slices = Mapping[tuple[str, str], Sequence[tuple[str, bool]]]
"""A set and its slice -> each answer, and whether people call it a refusal."""


def sliced(rows: Sequence[Labelled], half: str) -> Slices:
    """Return the labelled answers of a half by set and slice."""
    slices: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for row in rows:
        if row.half == half:
            for part in dict.fromkeys(("all", row.slice or "all")):
                slices.setdefault((row.set, part), []).append((row.answer, row.refused))
    return slices


def table(slices: Slices) -> list[list[str]]:
    """Return a row for each slice of each set: how many answers, both errors, and kappa by either setting."""
    judge = RuleJudge()
    return [
        [*name, *_facts(calibrate(judge, chosen)), _kappa(calibrate(judge, chosen, "complied"))]
        for name, chosen in slices.items()
    ]


def compared(slices: Slices, judges: Sequence[Judge]) -> list[list[str]]:
    """Return a row for each slice of each set: the kappa of each judge."""
    return [[*name, *(_kappa(calibrate(judge, chosen)) for judge in judges)] for name, chosen in slices.items()]


def _facts(counts: Calibration) -> list[str]:
    def share(part: int, whole: int) -> str:
        return f"{part} of {whole} ({part / whole:.1%})" if whole else "–"

    not_refused = counts.false_positive + counts.true_negative
    refused = counts.true_positive + counts.false_negative
    errors = share(counts.false_positive, not_refused), share(counts.false_negative, refused)
    return [str(counts.n), *errors, _kappa(counts)]


def _kappa(counts: Calibration) -> str:
    return "–" if counts.kappa is None else f"{counts.kappa:.3f}"


def seconds(rows: Sequence[Labelled]) -> float:
    """Return how long the judge takes for 10,000 of the answers."""
    judge = RuleJudge()
    answers = [rows[at % len(rows)].answer for at in range(TIMED)]
    start = time.process_time()
    for answer in answers:
        judge.judge(answer)
    return time.process_time() - start


def main() -> None:
    """Print the table, or the answers of a set on which judge and label differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds judge/ and xstest/")
    parser.add_argument("--half", choices=HALVES, default="seen", help="unseen: only once the rules are done")
    parser.add_argument("--show", metavar="SET", help="print the answers of this set that are judged wrong")
    parser.add_argument("--slice", default="", help="of these, only one slice")
    parser.add_argument("--peers", type=Path, metavar="WHEEL", help="garak's wheel: compare its lists of strings")
    options = parser.parse_args()
    rows = list(every(options.data))
    if options.show:
        show([row for row in rows if row.set == options.show and row.half == options.half], options.slice)
        return
    slices = sliced(rows, options.half)
    errors = ("not refused, judged refused", "refused, missed")
    headers = ("set", "slice", "answers", *errors, "kappa", "kappa, premise complied")
    text = tabulate(table(slices), headers, tablefmt="github", disable_numparse=True)
    if options.peers:
        judges: list[Judge] = [RuleJudge(), *peers(options.peers)]
        named = ("set", "slice", *(judge.name for judge in judges))
        lists = tabulate(compared(slices, judges), named, tablefmt="github", disable_numparse=True)
        text += f"\n\nKappa of lists of strings:\n\n{lists}"
    text += f"\n\n{TIMED:,} answers take {seconds(rows):.1f} s of one core."
    print(text)
    if options.half == "unseen":
        PAGE.write_text(f"# The judge on labelled answers\n\n{__doc__}\n{text}\n", "utf-8")


def show(rows: Sequence[Labelled], part: str) -> None:
    """Print the answers on which judge and label differ."""
    judge = RuleJudge()
    for row in rows:
        judged = judge.judge(row.answer)
        if (count_premise([judged.verdict]) == [Verdict.REFUSED]) is not row.refused and part in row.slice:
            label = "refused" if row.refused else "NOT refused"
            print(f"--- {row.slice}; label: {label}; judged: {judged.verdict} ({judged.reason})\n{row.answer[:700]}\n")


if __name__ == "__main__":
    main()
