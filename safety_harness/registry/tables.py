"""Read the tables of one registry file, with what a family takes from its file's defaults and from a command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from safety_harness.errors import ConfigError, did_you_mean, first_fault
from safety_harness.reading import MIB, Reader, shown
from safety_harness.registry.attacks import AttackRow
from safety_harness.registry.backend import Backend
from safety_harness.registry.judges import KINDS as JUDGES
from safety_harness.registry.judges import JudgeRow
from safety_harness.registry.schema import Family, StudentSpec
from safety_harness.registry.server import Served
from safety_harness.registry.settings import PRESETS, GateSettings, SearchSettings, Settings, screen_tokens
from safety_harness.registry.sources import MustQuestions, SplitSpec

Rows = TypeVar("Rows", bound=Mapping[str, Any])
# A student takes a few hundred bytes.
_READER = Reader(
    ConfigError, missing="no such registry file. Check the path.", advice="Check the registry file.", at_most=MIB // 2
)
_JUDGES: TypeAdapter[Mapping[str, JudgeRow]] = TypeAdapter(Mapping[str, JudgeRow])
_ATTACKS: TypeAdapter[Mapping[str, AttackRow]] = TypeAdapter(Mapping[str, AttackRow])


def read_judges(file: Path) -> Mapping[str, JudgeRow]:
    """Return the judges of a registry *file*, which may name no family.

    Raises:
        ConfigError: it cannot be used.
    """
    return _rows(file, read_table(file), "judges", _JUDGES)


def _rows(file: Path, read: Mapping[str, Any], name: str, rows: TypeAdapter[Rows]) -> Rows:
    """Return the *rows* of the table *name* of a file that was *read*.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        return rows.validate_python(_table(file, name, read.get(name, {})), context=file.parent)
    except ValidationError as error:
        raise ConfigError(f"{file}: {name}.{first_fault(error)}.{_meant(error)}") from error


def read_table(file: Path) -> dict[str, Any]:
    """Return what a registry *file* says, unchecked.

    Raises:
        ConfigError: it is missing, or is not TOML.
    """
    return _READER.toml(file)


def read_families(file: Path, search: Mapping[str, object], gate: Mapping[str, object]) -> Mapping[str, Family]:
    """Return the families of one registry file, by name.

    Raises:
        ConfigError: the file cannot be used.
    """
    table = read_table(file)
    if not isinstance(table.get("families"), dict) or not table["families"]:
        raise ConfigError(f"{file}: defines no family. Add a table [families.NAME].")
    if extra := set(table) - {"families", "defaults", "group", "judges", "attacks"}:
        has = "A registry has `group`, [defaults], [families.NAME], [judges.NAME] and [attacks.NAME]."
        raise ConfigError(f"{file}: unknown table {sorted(extra)[0][:80]!r}. {has}")
    defaults = {"group": table.get("group", "")} | _table(file, "defaults", table.get("defaults", {}))
    defaults |= {"judges": _rows(file, table, "judges", _JUDGES), "attacks": _rows(file, table, "attacks", _ATTACKS)}
    return {
        name: _family(file, name, defaults, _table(file, f"families.{name}", entry), search, gate)
        for name, entry in table["families"].items()
    }


def _table(file: Path, where: str, value: Any) -> dict[str, Any]:
    """Return *value*, if it is a table.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {shown(where[:300])}: must be a table, not {value!r:.80}.")
    return value


def _family(
    file: Path,
    name: str,
    defaults: dict[str, Any],
    entry: dict[str, Any],
    search: Mapping[str, object],
    gate: Mapping[str, object],
) -> Family:
    """Return the family of one TOML table, on top of the *defaults* and under the options *search* and *gate*.

    Raises:
        ConfigError: a value is unknown or wrong.
    """
    merged: dict[str, Any] = defaults | entry | {"name": name}
    preset = merged.get("preset", "standard")
    chosen = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    if isinstance(tokens := merged.get("max_new_tokens", Family.model_fields["max_new_tokens"].default), int):
        merged.setdefault("screen_tokens", screen_tokens(preset, tokens))
    # Threshold by threshold: a family that sets one keeps the defaults of the others.
    for kind, base, options in (("search", chosen, search), ("gate", {}, gate)):
        common = dict(base) | _table(file, f"defaults.{kind}", defaults.get(kind, {}))
        merged[kind] = common | _table(file, f"families.{name}.{kind}", entry.get(kind, {})) | dict(options)
    if isinstance(merged.get("students"), dict):
        merged["students"] = {
            student: _with_search(file, f"families.{name}.students.{student}", spec, merged["search"], search)
            for student, spec in merged["students"].items()
        }
    try:
        return Family.model_validate(merged, context=file.parent)
    except ValidationError as error:
        raise ConfigError(f"{file}: families.{shown(name[:80])}.{first_fault(error)}.{_meant(error)}") from error


def _meant(error: ValidationError) -> str:
    """Return in words which key was meant by one that no table has; nothing if the first fault is another one."""
    fault = error.errors()[0]
    if fault["type"] != "extra_forbidden":
        return ""
    of_students = (Family, StudentSpec, SplitSpec, MustQuestions, Served, Backend, GateSettings, SearchSettings)
    tables: list[type[Settings]] = [*of_students, *JUDGES.values(), AttackRow]
    keys = sorted({key for table in tables for key in table.model_fields})
    return did_you_mean(str(fault["loc"][-1]), keys) or " All keys are in docs/reference.md."


def _with_search(file: Path, where: str, spec: Any, family: dict[str, Any], options: Mapping[str, object]) -> Any:
    """Return *spec* with its own search settings completed by the family's. Options win over both."""
    if not isinstance(spec, dict) or "search" not in spec:
        return spec
    return spec | {"search": family | _table(file, f"{where}.search", spec["search"]) | dict(options)}
