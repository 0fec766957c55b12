"""Write the registry of ``safety-harness init``: one family, one student, and why each key is there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_harness.cli.sources import Look, place_of, written
from safety_harness.registry.named import Kind, sets
from safety_harness.registry.readable import default_set
from safety_harness.registry.toml_text import key_text, value_text

if TYPE_CHECKING:
    from safety_harness.evaluation.machine import Machine

QUESTIONS: tuple[Kind, ...] = ("harmful", "harmless", "text")
GIB = 2**30
# What a process takes before it holds a model: Python, torch and transformers.
OWN_GIB = 0.7
# Tokens in which a model says whether it refuses. Questions asked at once, on a processor and on a GPU.
MAX_NEW_TOKENS, ON_CPU, ON_GPU = 48, 32, 128


@dataclass(frozen=True)
class Answers:
    """What the user said: the three models and files, the names in the registry, and which CI files to write."""

    folder: Path
    student: str
    teacher: str
    task: tuple[str, ...]
    family: str
    preset: str
    ci: tuple[str, ...]
    force: bool


def registry_text(answers: Answers, student: Look, teacher: Look | None, machine: Machine, memory: int = GIB) -> str:
    """Return the text of the registry. *memory* is what one worker needs, in bytes."""
    parameters = student.sketch.parameters if student.sketch else 0
    questions = _questions(student, answers.folder)
    rows: list[tuple[str, Any, str]] = []
    if teacher:
        rows.append(("teacher", _source(teacher.table), "the aligned model, from which a patch is taken"))
    if "served" not in student.table:
        rows += [
            ("preset", answers.preset, "or thorough, quick: how a patch is searched"),
            ("dtype", machine.dtype(parameters), "what this machine computes best"),
            ("batch_size", ON_GPU if machine.gpu else ON_CPU, "questions asked at once"),
            ("memory_gib", math.ceil(10 * (memory / GIB + OWN_GIB)) / 10, "of one worker; -n auto counts with it"),
        ]
    rows.append(("max_new_tokens", MAX_NEW_TOKENS, "of an answer"))
    rows += [(kind, name, "questions that its tokenizer can read") for kind, name in questions.items()]
    usual = ", ".join(f"{kind} = {value_text(next(iter(sets(kind))))}" for kind in QUESTIONS)
    about = [] if questions else [f"# What is asked: {usual}. Others: safety-harness questions list"]
    release: list[tuple[str, Any, str]] = [*((key, value, "") for key, value in student.table.items())]
    if answers.task:
        release.append(("task", _task(answers), "its own task, which a patch may not cost"))
    return "\n".join(
        [
            "# What is gated, and how. Every key: docs/reference.md of safety-harness.",
            f"[families.{key_text(answers.family)}]",
            *(_line(*row) for row in rows),
            *about,
            '# Under attack as well: gate = { attacks = ["prefill", "persona"] }. How it decides: docs/attacks.md',
            "",
            f"[families.{key_text(answers.family)}.students.{key_text(_student_name(answers))}]",
            *(_line(*row) for row in release),
            "",
        ]
    )


def _questions(student: Look, folder: Path) -> dict[Kind, str]:
    """Return the sets of questions that the student can read, of the kinds for which these are not the usual ones."""
    place = student.spec(folder).path if "path" in student.table else None
    if place is None or not (place / "tokenizer.json").is_file():
        return {}
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    except Exception:  # the Rust tokenizer raises this very class; the run will say what is wrong
        return {}
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")

    def tokens(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    chosen = {kind: default_set(kind, tokens, unknown) for kind in QUESTIONS}
    return {kind: name for kind, name in chosen.items() if name != next(iter(sets(kind)))}


def _student_name(answers: Answers) -> str:
    """Return a name for the student in tables and paths: that of its folder, file or repository."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place_of(answers.student).resolve().name).strip("-.")
    return name[:100] or "release"


def _task(answers: Answers) -> Any:
    """Return the task as the registry names it: one file, which is split by hash, or one for each side."""
    known = sets("task")
    names = [name if name in known else written(place_of(name), answers.folder) for name in answers.task]
    return names[0] if len(names) == 1 else dict(zip(("search", "report"), names, strict=True))


def _source(table: Mapping[str, Any]) -> Any:
    """Return a source in its short form where it has one."""
    return table["path"] if table.keys() == {"path"} else dict(table)


def _line(key: str, value: Any, comment: str = "") -> str:
    line = f"{key} = {value_text(value)}"
    return f"{line:<38}  # {comment}" if comment else line


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
