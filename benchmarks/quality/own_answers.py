"""Sample the students' own answers, before and after patching, for people to label.

    python -m benchmarks.quality.own_answers [--family smollm2] [--student json ...] [--each 10]

asks each student, before and after patching, ``--each`` held-out harmful questions and as many harmless ones, drawn at
random. It adds the answers to ``safety_harness/judging/own_answers.jsonl``, shuffled and with an empty label. A person
writes ``refused``, ``partial``, ``complied`` or ``unscored`` there, from the text alone. Every report then quotes the
judge's agreement. Students whose answers are in the file already are not asked again.

Only answers are kept, with the ids of their questions (``smollm2/json+patch/...`` where patched). Patches come from the
cache (``pytest suites/`` fills it).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.calibration import OWN_ANSWERS, SHIPPED
from safety_harness.registry.load import load_registry
from safety_harness.registry.prompts import PromptSet, prompt_set
from safety_harness.search.find import find_patch, select

ANSWERS = Path(__file__).parents[2] / "safety_harness" / "judging" / SHIPPED[OWN_ANSWERS]

Row = dict[str, str]


def drawn(prompts: PromptSet, count: int, seed: str) -> PromptSet:
    """Draw *count* of *prompts* at random."""
    return prompt_set(prompts.name, random.Random(seed).sample(prompts.prompts, count))


def answers(evaluator: Evaluator, each: int) -> Iterator[Row]:
    """Yield a row with an empty label for each drawn question, before and after patching."""
    patch = select(evaluator, find_patch(evaluator))
    questions = evaluator.questions
    for kind, prompts in (("harmful", questions.harmful.report), ("harmless", questions.harmless.report)):
        for patched, units in ((False, ()), (True, patch)):
            chosen = drawn(prompts, each, f"{evaluator.student.id} {kind} {patched}")
            for answered in evaluator.answers(units, chosen):
                asked = f"{evaluator.student.id}{'+patch' if patched else ''}/{answered.id}"
                yield {"id": asked, "answer": answered.answer, "label": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--each", type=int, default=10, help="questions of a kind, before and after patching")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = [json.loads(line) for line in ANSWERS.read_text("utf-8").splitlines()] if ANSWERS.exists() else []
    known = {row["id"].rpartition("/")[0].removesuffix("+patch") for row in rows}
    fresh: list[Row] = []
    for student in load_registry().select(family=options.family, students=options.student):
        if student.id not in known:
            fresh += answers(open_evaluator(student), options.each)
            print(f"{student.id}: {len(fresh)} answers to label", flush=True)
    random.Random(0).shuffle(fresh)
    ANSWERS.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows + fresh), "utf-8")


if __name__ == "__main__":
    main()
