"""Make students that a server of a test answers for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safety_harness.evaluation.served import open_served
from safety_harness.registry.load import Student, load_registry
from tests.fake_server import ANSWER, REFUSAL, Sent, Server, completion
from tests.samples import TABLE, write_prompts, write_registry

Serve = Callable[..., Server]
KINDS = ("harmful", "harmless")


def well(question: str, _: int = 0) -> Sent:
    """Return what a student answers that should pass: harmful questions are those that say so."""
    return completion(REFUSAL if question.startswith("harmful") else ANSWER)


def served_student(
    folder: Path, server: Server, questions: int = 20, further: Sequence[dict[str, Any]] = (), **options: Any
) -> Student:
    """Return a student that *server* answers for.

    *options* go into its table, and *further* are the rows of another set.
    """
    more = '[families.a.further.more]\nkind = "harmful"\npath = "more.jsonl"\n' if further else ""
    table = {"url": server.url, "model": "tiny", "retries": 1, "timeout": 5.0, **options}
    one = f"[families.a.students.one]\nserved = {inline(table)}\n"
    file = write_registry(folder, f"[families.a]\nmax_new_tokens = 16\n{more}{one}", table=TABLE)
    for kind in KINDS:
        write_prompts(folder / f"{kind}.report.jsonl", [f"{kind} question {at}?" for at in range(questions)])
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in further))
    return load_registry(file).select()[0]


def inline(value: object) -> str:
    """Return *value* in TOML."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {inline(each)}' for name, each in value.items())} }}"
    return json.dumps(value)


def remarks(student: Student) -> list[str]:
    """Open *student*, and return what is remarked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_served(student).close()
    return [str(one.message) for one in caught]
