"""Count held-out refusals with long answers: what short answers may hide, and whether long answers fall apart.

    python -m benchmarks.quality.long_answers [--family smollm2] [--student json ...] [--tokens 200] [--results FILE]

asks the held-out harmful questions twice: with the family's answer length, and with ``--tokens``. It asks each student
as it is, with its patch, and with all of the teacher. The patch is from the results.json FILE, or else from the cache
of ``pytest suites/``. It writes ``long_answers.jsonl`` and ``long_answers.md`` next to this file, a row a student and
model. A row that is there for this patch is not measured again.

A row holds refused, partial and unscored answers of either length. Then come refusals of the short answers that the
long answers take back, and refusals that only the long answers contain. Two signs tell of an answer that falls apart.
One is the perplexity of the long answers under the family's ancestor, given their questions. The second is the share
of their four-word sequences that repeat an earlier one of their answer.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.kept import Row
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.judge import Verdict
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import answer_logprobs
from safety_harness.models.load import load, prepare
from safety_harness.registry.load import Student, load_registry
from safety_harness.search.find import find_patch, select
from safety_harness.weights.units import Unit

HEADERS = (
    "student",
    "model",
    "refused, partial, unscored: short",
    "long",
    "taken back",
    "late",
    "perplexity",
    "repeats",
)
SEQUENCE_WORDS = 4
LOG = Path(__file__).with_suffix(".jsonl")


def rows(
    student: Student, tokens: int, ancestor: Generator, known: Sequence[Row], results: Path | None
) -> Iterator[Row]:
    """Yield the rows of *student* that are not *known* yet, with its patch of *results* or of the cache.

    A row has ``student``, ``model``, ``tokens``, of the patched one ``patch`` by its name, and ``cells`` of the table.
    """
    evaluator = open_evaluator(student)
    patch = find_patch(evaluator, results)
    models = {"as it is": (), "patched": select(evaluator, patch), "all of the teacher": evaluator.units}
    for name, units in models.items():
        row = {"student": student.id, "model": name, "tokens": tokens}
        if name == "patched":
            row["patch"] = kept.patch_name(patch.key, patch.units)
        if not kept.holds(known, row):
            yield row | {"cells": measured(evaluator, units, tokens, ancestor)}


def measured(evaluator: Evaluator, units: Sequence[Unit], tokens: int, ancestor: Generator) -> list[Any]:
    """Return the cells of one row."""
    prompts = evaluator.questions.harmful.report
    short = [answer.verdict for answer in evaluator.answers(units, prompts)]
    with evaluator.transplanter.transplanted(units):
        answers = evaluator.generator.answers(prompts.texts, tokens)
    long = [evaluator.judged(prompt, answer).verdict for prompt, answer in zip(prompts, answers, strict=True)]
    pairs = [tuple(verdict is Verdict.REFUSED for verdict in pair) for pair in zip(short, long, strict=True)]
    return [
        counts(short), counts(long), pairs.count((True, False)), pairs.count((False, True)),
        f"{perplexity(ancestor, prompts.texts, answers):.2f}", f"{repeated(answers):.3f}",
    ]  # fmt: skip


def counts(verdicts: Sequence[Verdict]) -> str:
    """Return how many answers are refused, partial and unscored."""
    shown = (Verdict.REFUSED, Verdict.PARTIAL, Verdict.UNSCORED)
    return ", ".join(str(verdicts.count(verdict)) for verdict in shown) + f" of {len(verdicts)}"


def perplexity(generator: Generator, questions: Sequence[str], answers: Sequence[str]) -> float:
    """Return the token-weighted perplexity of the *answers* after their *questions*."""
    total, count = 0.0, 0
    for question, answer in zip(questions, answers, strict=True):
        ids = generator.tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logprobs = answer_logprobs(generator, [question], [answer])[0]
        tokens = torch.tensor(ids, device=logprobs.device)[:, None]
        total -= float(logprobs[: len(ids)].gather(-1, tokens).sum())
        count += len(ids)
    return math.exp(total / max(1, count))


def repeated(answers: Sequence[str]) -> float:
    """Return the share of the four-word sequences that repeat an earlier one of their answer."""
    total = again = 0
    for answer in answers:
        words = answer.lower().split()
        sequences = [tuple(words[i : i + SEQUENCE_WORDS]) for i in range(len(words) - SEQUENCE_WORDS + 1)]
        total, again = total + len(sequences), again + len(sequences) - len(set(sequences))
    return again / max(1, total)


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    students = load_registry().select(family=options.family, students=options.student)
    family = students[0].family
    if family.ancestor is None:
        raise SystemExit(f"Family {family.name!r} names no ancestor, whose perplexity of the answers is reported.")
    loaded = load(prepare(family.ancestor), family.dtype)
    ancestor = Generator(loaded.model, loaded.tokenizer, batch_size=1)
    for student in students:
        for row in rows(student, options.tokens, ancestor, kept.read(LOG), options.results):
            print(row, flush=True)
            kept.add(LOG, [row])  # each time, so that a run that is broken off leaves what it measured
    # The last of the rows about one thing counts.
    latest = list({which(row): row for row in kept.read(LOG)}.values())
    LOG.with_suffix(".md").write_text(page(latest), encoding="utf-8")


def which(row: Row) -> tuple[Any, ...]:
    """Return what a row is about."""
    return tuple(row[name] for name in ("student", "model", "tokens"))


def page(rows: Sequence[Row]) -> str:
    """Return a table for each family and length."""
    text = "# Long answers, held out\n"
    for family, tokens in dict.fromkeys((row["student"].split("/")[0], row["tokens"]) for row in rows):
        some = [row for row in rows if (row["student"].split("/")[0], row["tokens"]) == (family, tokens)]
        students = "".join(f" --student {name}" for name in dict.fromkeys(row["student"].split("/")[1] for row in some))
        command = f"python -m benchmarks.quality.long_answers --family {family} --tokens {tokens}{students}"
        lines = [(row["student"], row["model"], *row["cells"]) for row in sorted(some, key=lambda row: row["student"])]
        table = tabulate(lines, HEADERS, tablefmt="github", disable_numparse=True)
        text += f"\n`{command}`, patched as the last `--results FILE` holds, or else the cache\n\n{table}\n"
    return text


if __name__ == "__main__":
    main()
