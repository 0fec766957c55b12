"""Check registry files of any content: each is read, or refused with its name, and so is each student's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import ConfigError
from safety_harness.registry.load import Registry, load_registry, unknown
from safety_harness.registry.schema import Family
from tests.samples import TABLE, family

NAMES = st.text("abc-_.019", min_size=1, max_size=6).filter(lambda name: any(char.isalnum() for char in name))
SCALARS = st.booleans() | st.integers(-3, 99) | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(["path", "search", "a"])
VALUES = st.recursive(
    SCALARS | st.text("ab/=.1", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted({*Family.model_fields, "nonsense"} - {"name"})


def toml(value: Any) -> str:
    """Write *value* as inline TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry") / "registry.toml"


def read_or_refuse(file: Path, text: str) -> Registry | None:
    """Read *text* as a registry, or check that the message of its refusal begins with the file's name."""
    file.write_text(text, encoding="utf-8")
    message = ""
    try:
        return load_registry(file)
    except ConfigError as error:
        message = str(error)
    assert message.startswith(f"{file}: ")
    return None


@given(field=st.sampled_from(FIELDS), value=VALUES, default=st.booleans())
def test_any_value_of_any_field_is_read_or_refused(file: Path, field: str, value: Any, default: bool) -> None:
    line = f"{field} = {toml(value)}\n"
    if default:
        read_or_refuse(file, f'[defaults]\n{line}[families.a]\nteacher = "t"\n')
    else:
        read_or_refuse(file, f'{TABLE}[families.a]\n{line}[families.b]\nteacher = "t"\n')


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused(file: Path, text: str) -> None:
    read_or_refuse(file, text)


@given(students=st.lists(NAMES, min_size=1, max_size=5, unique=True), wanted=st.lists(NAMES, max_size=3))
def test_students_are_found_by_name_and_by_id_or_refused(file: Path, students: list[str], wanted: list[str]) -> None:
    registry = read_or_refuse(file, TABLE + family("fam", dict.fromkeys(students, "pass")))
    assert registry is not None
    assert [student.name for student in registry.select()] == students
    for name in students:
        (by_name,), (by_id,) = registry.select(students=[name]), registry.select(students=[f"fam/{name}"])
        assert by_name == by_id
    if set(wanted) <= set(students):
        expected = [name for name in students if not wanted or name in wanted]
        assert [student.name for student in registry.select(students=wanted)] == expected
    else:
        with pytest.raises(ConfigError, match="Unknown student"):
            registry.select(students=wanted)


@given(name=st.text(max_size=8), known=st.sets(NAMES, max_size=5))
def test_known_names_are_listed_and_only_they_are_suggested(name: str, known: set[str]) -> None:
    message = unknown("family", name, known)
    assert message.endswith(f"Known: {', '.join(sorted(known))}.")
    _, suggestion, rest = message.partition(" Did you mean '")
    assert not suggestion or rest.partition("'")[0] in known
