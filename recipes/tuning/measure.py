"""Measure a family: `python -m recipes.tuning.measure [--family F] --wheels DIR --work DIR [NAME ...]`.

For each of base, teacher and students: how often it refuses the paper's 128 questions (defense success rate,
DSR), its perplexity on prompts/text.jsonl relative to the base, and for a student its task accuracy. The first 32
of these questions are asked again behind each beginning of an answer that the harness knows as an attack, and the
first 32 harmless neighbours likewise. `--data DIR` adds over-refusal on what the repository does not hold: the harmless
twins of AdvBench (dapa/advbench_392_harmless_twins.csv) and XSTest's safe questions (xstest/xstest_prompts.csv).
Answers go to `<work>/<family>/measured/<name>.json` for reading.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.conversation import Asked, Conversation, asked_text
from safety_harness.files import write_whole
from safety_harness.judging.judge import Verdict
from safety_harness.judging.own_task import is_right
from safety_harness.models.convert import merge_adapter
from safety_harness.models.generate import Generator
from safety_harness.registry.prompts import read_prompts

from . import advbench
from .answers import verdict
from .bases import BASES, CHAT
from .plans import TEACHER
from .questions import read_table
from .recipe import PYRIT_WHEEL, Workshop
from .tasks import TASKS

BASE = "base"
REFUSAL_TOKENS = 32
ASKED_BEGUN = 32
TASK_TOKENS = 40
BATCH = 32


@dataclass
class Measured:
    """One model's figures; each rate is (hits, questions)."""

    name: str
    refused: dict[str, tuple[int, int]] = field(default_factory=dict)
    task: dict[str, tuple[int, int]] = field(default_factory=dict)
    perplexity: float = math.nan
    answers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def question_sets(wheel: Path, work: Path, data: Path | None) -> dict[str, Sequence[Asked]]:
    """Return what to count refusals on, by the name of the table's column."""
    paper = advbench.split(advbench.extract(wheel, work)).report.texts
    neighbours = read_prompts(advbench.PROMPTS / "neighbours.search.jsonl").texts
    sets: dict[str, Sequence[Asked]] = {
        "DSR (128)": paper,
        "kinds": read_prompts(advbench.PROMPTS / "kinds.search.jsonl").texts,
        "own harmless": read_prompts(advbench.PROMPTS / "harmless.report.jsonl").texts,
        "neighbours": neighbours,
    }
    for name, attack in builtin_attacks().items():
        if attack.kind == "prefill":
            for kind, questions in (("", paper), (", neighbours", neighbours)):
                sent = [attack.sees(question) for question in questions[:ASKED_BEGUN]]
                sets[f"{name}{kind}"] = [one for one in sent if isinstance(one, Conversation)]
    if data is not None:
        # Read as they are: the twins repeat a few questions, which a prompt file of ours may not.
        twins = read_table(data / "dapa" / "advbench_392_harmless_twins.csv")
        sets["twins"] = [row["text"] for row in twins]
        xstest = read_table(data / "xstest" / "xstest_prompts.csv")
        sets["XSTest safe"] = [row["prompt"] for row in xstest if row["label"] == "safe"]
    return sets


def measure(name: str, checkpoint: Path, sets: dict[str, Sequence[Asked]], tasks: Sequence[str]) -> Measured:
    """Return every figure of one checkpoint."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    generator = Generator(model, tokenizer, batch_size=BATCH)
    result = Measured(name)
    for label, questions in sets.items():
        answers = generator.answers(questions, REFUSAL_TOKENS)
        begun = [generator.chat.begun(question) for question in questions]
        verdicts = [verdict(one.removeprefix(given), given) for one, given in zip(answers, begun, strict=True)]
        result.refused[label] = (verdicts.count(Verdict.REFUSED), len(answers))
        result.answers[label] = list(zip(map(asked_text, questions), answers, strict=True))
    for task in tasks:
        items = TASKS[task].split().report
        answers = generator.answers([item.text for item in items], TASK_TOKENS)
        right = sum(is_right(answer, item.answer) for answer, item in zip(answers, items, strict=True))
        result.task[task] = (right, len(items))
        result.answers[task] = [(item.text, answer) for item, answer in zip(items, answers, strict=True)]
    result.perplexity = perplexity(model, tokenizer, read_prompts(advbench.PROMPTS / "text.jsonl").texts)
    return result


def perplexity(model: Any, tokenizer: Any, documents: Sequence[str]) -> float:
    """Return the perplexity: exp of the mean negative log-likelihood over all predicted tokens."""
    total, count = 0.0, 0
    for document in documents:
        ids = tokenizer(document, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return math.exp(total / count)


def checkpoint_of(name: str, shop: Workshop, adapters: Path) -> Path:
    """Return the merged checkpoint of `name`, made in the workshop (again at every call: adapters change)."""
    if name == BASE:
        return shop.start(TEACHER)
    merged = shop.folder / "merged" / name
    merge_adapter(shop.start(name), adapters / name, merged)
    return merged


def table(results: Sequence[Measured]) -> str:
    """Return a Markdown table of rates with counts, and perplexity relative to the base where it was measured."""
    base = next((result.perplexity for result in results if result.name == BASE), math.nan)
    rows = []
    for result in results:
        row: dict[str, str] = {"model": result.name}
        row |= {label: _rate(*counts) for label, counts in result.refused.items()}
        row["perplexity / base"] = f"{result.perplexity:.2f} / {result.perplexity / base:.3f}"
        row |= {task: _rate(*counts) for task, counts in result.task.items()}
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _rate(hits: int, questions: int) -> str:
    return f"{hits / questions:.3f} ({hits}/{questions})"


def main() -> None:
    """Measure a family from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="base, teacher or a student; default: all shipped")
    parser.add_argument("--family", choices=list(BASES), default="smollm2")
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapters", type=Path, help="where they lie; default: in the family's folder")
    arguments = parser.parse_args()
    shop = Workshop.of(arguments.family, arguments.wheels, arguments.work)
    students = shop.plan.students
    known = [BASE, TEACHER, *students]
    if unknown := set(arguments.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    torch.set_num_threads(1)
    sets = question_sets(arguments.wheels / PYRIT_WHEEL, shop.folder, arguments.data)
    results = []
    for name in arguments.names or [BASE, *(name for name in shop.plan.shipped if name != CHAT)]:
        checkpoint = checkpoint_of(name, shop, arguments.adapters or shop.base.adapters)
        tasks = [students[name].task] if name in students else list(dict.fromkeys(s.task for s in students.values()))
        results.append(measure(name, checkpoint, sets, tasks))
        file = shop.folder / "measured" / f"{name}.json"
        write_whole(file, json.dumps(asdict(results[-1]), indent=1, ensure_ascii=False))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
