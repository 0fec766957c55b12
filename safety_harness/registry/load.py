"""Families and students from TOML: checked, typed, and with a "did you mean" for every name that misses."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safety_harness.errors import ConfigError, first_fault
from safety_harness.registry.schema import Family, ModelSpec, StudentSpec
from safety_harness.registry.settings import SearchSettings

# Family, or group of families, that is in no wheel -> its registry file in the repository.
REPOSITORY_ONLY = {
    "smollm2": "smollm2.toml",
    "gemma3": "gemma3.toml",
    **dict.fromkeys(("paper", "llama2-7b", "llama2-13b", "mistral-7b", "gemma-7b", "gemma-2b"), "paper.toml"),
}


@dataclass(frozen=True)
class Student:
    """A student that a run is about; ``id`` is unique over a registry: ``tiny-llama/arithmetic``.

    ``family`` has the student's own settings of the search, where it has such; ``usual`` are then its family's.
    """

    name: str
    family: Family
    spec: StudentSpec
    usual: SearchSettings | None = None

    @property
    def id(self) -> str:
        return f"{self.family.name}/{self.name}"

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Every model that gating this student needs: its teacher, the ancestor where it is added to, itself."""
        family = self.family
        added = family.ancestor if family.search.transfer == "add" else None
        return (family.teacher, *([added] if added else []), self.spec)


@dataclass(frozen=True)
class Registry:
    """Every family of one TOML file (or of the embedded ones)."""

    families: Mapping[str, Family]

    def select(
        self, *, family: str | None = None, students: Sequence[str] = (), teacher: str | None = None
    ) -> tuple[Student, ...]:
        """The students that a run is about, in the registry's order.

        Args:
            family: a family, or a group of families; all when None.
            students: names or ids; all when empty.
            teacher: a family whose teacher is used for all of them, in place of their own.

        Raises:
            ConfigError: a name is not known (the message suggests the nearest), or a family is to add what its
                teacher learnt since an ancestor that it does not name.
        """
        groups = {entry.group for entry in self.families.values() if entry.group}
        if family is not None and family not in self.families and family not in groups:
            if file := REPOSITORY_ONLY.get(family):
                raise ConfigError(
                    f"The family {family!r} is in the repository only: its files are too large for the installed "
                    "package. Clone the repository and run there (`pip install -e '.[all]'`), or give "
                    f"--registry CLONE/safety_harness/families/{file}."
                )
            raise ConfigError(unknown("family", family, [*groups, *self.families]))
        chosen = [
            Student(name, entry, spec)
            if spec.search is None
            else Student(name, entry.model_copy(update={"search": spec.search}), spec, entry.search)
            for entry in self.families.values()
            if family is None or family in (entry.name, entry.group)
            for name, spec in entry.students.items()
        ]
        for wanted in students:
            if not any(wanted in (student.name, student.id) for student in chosen):
                raise ConfigError(unknown("student", wanted, [student.id for student in chosen]))
        if students:
            chosen = [s for s in chosen if s.name in students or s.id in students]
        if teacher is not None:
            if teacher not in self.families:
                raise ConfigError(unknown("teacher", teacher, self.families))
            other = self.families[teacher].teacher
            chosen = [replace(s, family=s.family.model_copy(update={"teacher": other})) for s in chosen]
        for entry in (s.family for s in chosen):
            if entry.search.transfer == "add" and entry.ancestor is None:
                raise ConfigError(
                    f"Family {entry.name!r} is to add what its teacher learnt, but names no `ancestor`: the model that "
                    "teacher and students were tuned from. Name it, or replace."
                )
        return tuple(chosen)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known."""
    names = sorted(set(known))
    short = {candidate.rpartition("/")[2]: candidate for candidate in names}
    near = difflib.get_close_matches(name, [*names, *short], n=1)
    hint = f" Did you mean {short.get(near[0], near[0])!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def embedded_files() -> list[Path]:
    """Return the registry files of the package: all in a clone, those of ``tiny`` in a wheel."""
    folder = Path(str(resources.files("safety_harness"))) / "families"
    return sorted(folder.glob("*.toml"))


def load_registry(
    *files: Path,
    search: Mapping[str, object] | None = None,
    gate: Mapping[str, object] | None = None,
) -> Registry:
    """Read registry files (the embedded ones when none is given); *search* and *gate* override their thresholds.

    Raises:
        ConfigError: a file is missing, is not TOML (with line and column), or holds an unknown or wrong value.
    """
    families: dict[str, Family] = {}
    for file in files or embedded_files():
        for name, family in _read(file, search or {}, gate or {}).items():
            if name in families:
                raise ConfigError(f"{file}: family {name!r} is already defined in another file. Rename one.")
            families[name] = family
    return Registry(families)


def _read(file: Path, search: Mapping[str, object], gate: Mapping[str, object]) -> Mapping[str, Family]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such registry file. Check --registry.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}.") from error
    if not isinstance(table.get("families"), dict) or not table["families"]:
        raise ConfigError(f"{file}: defines no family. Add a table [families.NAME].")
    if extra := set(table) - {"families", "defaults", "group"}:
        raise ConfigError(
            f"{file}: unknown table {sorted(extra)[0]!r}. A registry has `group`, [defaults] and [families.NAME]."
        )
    defaults = {"group": table.get("group", "")} | _table(file, "defaults", table.get("defaults", {}))
    return {
        name: _family(file, name, defaults, _table(file, f"families.{name}", entry), search, gate)
        for name, entry in table["families"].items()
    }


def _table(file: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {where}: must be a table, not {value!r}.")
    return value


def _family(
    file: Path,
    name: str,
    defaults: dict[str, Any],
    entry: dict[str, Any],
    search: Mapping[str, object],
    gate: Mapping[str, object],
) -> Family:
    merged: dict[str, Any] = defaults | entry | {"name": name}
    # Threshold by threshold: a family that sets one keeps the defaults of the others.
    for kind, options in (("search", search), ("gate", gate)):
        common = _table(file, f"defaults.{kind}", defaults.get(kind, {}))
        merged[kind] = common | _table(file, f"families.{name}.{kind}", entry.get(kind, {})) | dict(options)
    if isinstance(merged.get("students"), dict):
        merged["students"] = {
            student: _with_search(file, f"families.{name}.students.{student}", spec, merged["search"], search)
            for student, spec in merged["students"].items()
        }
    try:
        return Family.model_validate(merged, context=file.parent)
    except ValidationError as error:
        raise ConfigError(f"{file}: families.{name}.{first_fault(error)}.") from error


def _with_search(file: Path, where: str, spec: Any, of_family: dict[str, Any], options: Mapping[str, object]) -> Any:
    """*spec*, its own settings of the search completed by the family's; options win over both."""
    if not isinstance(spec, dict) or "search" not in spec:
        return spec
    return spec | {"search": of_family | _table(file, f"{where}.search", spec["search"]) | dict(options)}
