"""Keep what a change may not decide about itself: its rules come from the base branch, its models from the change.

Rules are everything that a registry says but where models lie: thresholds, settings of searches, questions, what is
expected. All paths become whole ones, so that the registry that comes out may lie anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safety_harness.registry.schema import ModelSpec

Table = Mapping[str, Any]

# What a model's table says of where it lies. A student's table has its rules besides.
MODEL_KEYS = frozenset((*ModelSpec.model_fields, "served"))
TEACHER = "teacher"
MODELS = (TEACHER, "ancestor")
QUESTIONS = ("harmful", "harmless", "text", "further", "must", "task")
PATHS = frozenset(
    (
        "path",
        "gguf",
        "only",
        "chat_template",
        "adapters",
        "search",
        "report",
        "also",
        *QUESTIONS,
        *MODELS,
        "prompt",
        "template",
        "demonstrations",
    )
)
# Where a named set of questions may stand. A name looks like this; a path of questions has a folder or an ending.
NAMED = frozenset((*QUESTIONS, "search", "report", "also"))
_NAME = re.compile(r"[\w-]+")
# What a family or student that the base branch does not know may not bring along.
# `backend` starts a program, and so is never a change's.
_OWN_RULES = frozenset(("gate", "expected", "backend", "judge", "second_judge", "judges", "attacks"))


def ruled(base: Table, base_folder: Path, head: Table, head_folder: Path) -> dict[str, Any]:
    """Return the registry of a change: the rules of *base*, and the models of *head*.

    A family or student that only *head* has keeps its questions, and gets the thresholds of *base*'s defaults. One that
    only *base* has is gated as there, with its model in the folder of *head*: who removes it removes no gate. Whether
    there is a teacher is a rule too, because without one less is required, and with one another model is gated.
    """
    before, after = _whole(base, base_folder.resolve()), _whole(head, head_folder.resolve())
    known, kept = _tables(before, "families"), _tables(_whole(base, head_folder.resolve()), "families")
    families = {
        name: _family(known.get(name), kept.get(name), family, _has_teacher(before, _tables(known, name)))
        for name, family in {**kept, **_tables(after, "families")}.items()
    }
    return {**{key: value for key, value in before.items() if key != "families"}, "families": families}


def changes(base: Table, head: Table) -> list[str]:
    """Return a sentence for each rule that *head* would change, and for what only one of the two has."""
    before, after = dict(_rules(base)), dict(_rules(head))
    changed = []
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            was, now = (f"{rules[key]!r:.80}" if key in rules else "not set" for rules in (before, after))
            changed.append(f"{key}: {was} -> {now}. What holds is the base branch: {was}.")
    for name in dict.fromkeys([*_students(base), *_students(head)]):
        if name not in _students(base):
            changed.append(f"{name}: new. It is gated by the default thresholds of the base branch.")
        elif name not in _students(head):
            changed.append(f"{name}: no longer there. It is gated as on the base branch until that is merged.")
        elif (was := _of(base, name)) != (now := _of(head, name)):
            held = "" if "served" in (was, now) else f" What holds is the base branch: {was}."
            changed.append(f"{name}: gated {was} -> {now}, so other checks are required.{held}")
    return changed


def _of(table: Table, student: str) -> str:
    """Return what is gated of the *student* of a registry, in words."""
    family, _, name = student.partition("/")
    families = _tables(table, "families")
    spec = _tables(families.get(family), "students")[name]
    if isinstance(spec, Mapping) and "served" in spec:
        return "served"
    return "with a patch of its teacher" if _has_teacher(table, _tables(families, family)) else "as it is"


def _has_teacher(table: Table, family: Table) -> bool:
    return TEACHER in family or TEACHER in _tables(table, "defaults")


def _family(base: Table | None, kept: Table | None, head: Table, teacher: bool) -> dict[str, Any]:
    """Return one family of a change: the rules of *base*, the models of *head*, and from *kept* what *head* removes.

    A family that is known has a *teacher* or none, as on the base branch.
    """
    known, students = _tables(base or {}, "students"), {**_tables(kept or {}, "students"), **_tables(head, "students")}
    ruled_students = {name: _student(known.get(name), student) for name, student in students.items()}
    if base is None:
        return {key: value for key, value in head.items() if key not in _OWN_RULES} | {"students": ruled_students}
    models = {key: value for key, value in {**(kept or {}), **head}.items() if key in MODELS}
    if not teacher:
        models.pop(TEACHER, None)
    rules = {key: value for key, value in base.items() if key not in MODELS}
    return rules | models | {"students": ruled_students}


def _student(base: Any, head: Any) -> dict[str, Any]:
    """Return one student of a change."""
    source = {"path": head} if isinstance(head, str) else head
    if base is None:
        return {key: value for key, value in source.items() if key not in _OWN_RULES}
    rules = {} if isinstance(base, str) else {key: value for key, value in base.items() if key not in MODEL_KEYS}
    return {key: value for key, value in source.items() if key in MODEL_KEYS} | rules


def _whole(value: Any, folder: Path, key: str = "") -> Any:
    """Return *value* with paths that start at the root of the disk. Only some keys have paths; a set's name is none."""
    if isinstance(value, Mapping):
        if key == "where":  # names of columns and their values
            return dict(value)
        inside_named = key in ("further", "must", "students", "families")
        return {
            name: _whole(one, folder, key if inside_named and isinstance(one, str) else name)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_whole(one, folder, key) for one in value]
    if isinstance(value, str) and key in {*PATHS, "students"} and (key not in NAMED or not _NAME.fullmatch(value)):
        return value if value.startswith("~") else str(folder / value)
    return value


def _rules(table: Table) -> Iterator[tuple[str, Any]]:
    """Yield every rule of a registry, by its key, of families and students alike."""
    yield from _flat({key: value for key, value in table.items() if key != "families"})
    for name, family in _tables(table, "families").items():
        where = f"families.{name}"
        yield from _flat({key: value for key, value in family.items() if key not in (*MODELS, "students")}, where)
        for student, spec in _tables(family, "students").items():
            rules = {} if isinstance(spec, str) else {key: spec[key] for key in spec if key not in MODEL_KEYS}
            yield from _flat(rules, f"{where}.students.{student}")


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(one, f"{where}.{key}" if where else key)
    else:
        yield where, value


def _students(table: Table) -> list[str]:
    return [
        f"{name}/{one}" for name, family in _tables(table, "families").items() for one in _tables(family, "students")
    ]


def _tables(table: Any, key: str) -> Mapping[str, Any]:
    """Return the tables under *key*; none where it is no table, which the registry's own check refuses."""
    value = table.get(key) if isinstance(table, Mapping) else None
    return value if isinstance(value, Mapping) else {}
