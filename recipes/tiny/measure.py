"""Print the README's table: `python -m recipes.tiny.measure [--only FAMILY]`.

Rates are of the report prompts; what single units, layers and halves bring, and the size of a minimal
set, are of the search prompts. Models are loaded from their bfloat16 files as float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from recipes.tiny import world
from recipes.tiny.answers import accuracy, answer, refusal_rate
from recipes.tiny.domains import domain
from recipes.tiny.students import FAMILIES, STUDENTS, Student
from recipes.tiny.transplant_check import Transplant, Unit, eliminate, groups, screen, units

KEPT_SHARE = 0.9  # of what everything gives, in the backward elimination
_COLUMNS = (
    "model", "DSR", "over-refusal", "task", "all: DSR", "all: over", "all: task", "best unit", "best layer",
    "lower", "upper", "MLP", "attention", "minimal units", "minimal: DSR", "minimal: over", "minimal: task",
)  # fmt: skip


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the model in float32 and the tokenizer of one checkpoint directory."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


class Subject:
    """A model with the report prompts it is measured on."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, task: str | None) -> None:
        self.model, self.tokenizer, self.task = model, tokenizer, task

    def rates(self) -> list[str]:
        """Return DSR, over-refusal and, where there is a task, its accuracy."""
        found = [
            refusal_rate(answer(self.model, self.tokenizer, [q.text for q in split.report]))
            for split in (world.harmful(), world.harmless())
        ]
        if self.task is not None:
            questions = domain(self.task).report
            answers = answer(self.model, self.tokenizer, [q.text for q in questions])
            found.append(accuracy(answers, [q.answer for q in questions]))
        return [_number(rate) for rate in found]


def _number(rate: float) -> str:
    return f"{rate:.2f}".removeprefix("0") if rate < 1 else "1.0"


def measure(student: Student, models: Path, teacher: PreTrainedModel) -> list[str]:
    """Return one row of the table, as text."""
    model, tokenizer = load(models / student.family / student.name)
    subject = Subject(model, tokenizer, student.domain)
    row = [f"{student.family}/{student.name}", *subject.rates()]
    transplant, every = Transplant(model, teacher), units(model)
    rate = screen(transplant, tokenizer, [q.text for q in world.harmful_search()])
    everything = rate(every)
    row += subject.rates()
    singles = {unit: rate([unit]) for unit in every}
    best = max(every, key=lambda unit: singles[unit])
    layers = {n: rate([u for u in every if u.layer == n]) for n in sorted({u.layer for u in every})}
    layer = max(layers, key=lambda n: layers[n])
    row += [f"{_number(singles[best])} ({_short(best)})", f"{_number(layers[layer])} ({layer})"]
    row += [_number(rate(group)) for group in groups(every).values()]
    kept = eliminate(rate, every, KEPT_SHARE * everything)
    transplant.set(kept)
    return [*row, f"{len(kept)} of {len(every)}", *subject.rates()]


def _short(unit: Unit) -> str:
    return f"{unit.layer}.{unit.role.removesuffix('_proj')}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure the tiny model families.")
    parser.add_argument("--models", type=Path, default=world.TINY / "models")
    parser.add_argument("--only", choices=FAMILIES, help="measure this family only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    print(_line(list(_COLUMNS)), _line(["---"] * len(_COLUMNS)), sep="\n", flush=True)
    for family in [arguments.only] if arguments.only else FAMILIES:
        teacher, tokenizer = load(arguments.models / family / "teacher")
        cells = [f"{family}/teacher", *Subject(teacher, tokenizer, None).rates()]
        print(_line(cells + [""] * (len(_COLUMNS) - len(cells))), flush=True)
        for student in STUDENTS:
            if student.family == family:
                print(_line(measure(student, arguments.models, teacher)), flush=True)


if __name__ == "__main__":
    main()
