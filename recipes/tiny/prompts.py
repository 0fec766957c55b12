"""The prompt files of the tiny families: JSON lines with id and text, and for tasks the exact answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from recipes.tiny import world
from recipes.tiny.domains import DOMAINS, domain
from recipes.tiny.world import Question


def _write(path: Path, questions: Sequence[Question], *, answers: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.name.removesuffix(".jsonl")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, question in enumerate(questions):
            row = {"id": f"{stem}.{number:03d}", "text": question.text}
            if answers:
                row["answer"] = question.answer
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_prompts(folder: Path) -> None:
    """Write every prompt file of the families into `folder`; existing ones are replaced."""
    _write(folder / "harmful.search.jsonl", world.harmful_search(), answers=False)
    _write(folder / "harmful.report.jsonl", world.harmful().report, answers=False)
    _write(folder / "harmless.search.jsonl", world.harmless().search, answers=False)
    _write(folder / "harmless.report.jsonl", world.harmless().report, answers=False)
    texts = [Question(text, "") for text in world.held_out_documents()]
    _write(folder / "text.jsonl", texts, answers=False)
    for name in DOMAINS:
        split = domain(name)
        _write(folder / "tasks" / f"{name}.search.jsonl", split.search, answers=True)
        _write(folder / "tasks" / f"{name}.report.jsonl", split.report, answers=True)
