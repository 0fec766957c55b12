"""Read families and students from TOML: checked, typed, with a "did you mean" for every name that is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from safety_harness.errors import ConfigError
from safety_harness.registry.named import unknown
from safety_harness.registry.options import DEFAULT_REGISTRY
from safety_harness.registry.schema import Family, ModelSpec, StudentSpec
from safety_harness.registry.settings import GateSettings, SearchSettings
from safety_harness.registry.tables import read_families

# Family, or group of families, that is in no wheel -> its registry file in the repository.
REPOSITORY_ONLY = {
    "smollm2": "smollm2.toml",
    "gemma3": "gemma3.toml",
    **dict.fromkeys(("paper", "llama2-7b", "llama2-13b", "mistral-7b", "gemma-7b", "gemma-2b"), "paper.toml"),
}


@dataclass(frozen=True)
class Student:
    """A student that a run is about, with its family."""

    name: str
    family: Family
    spec: StudentSpec

    @property
    def id(self) -> str:
        """Family and name: unique over a registry, for example ``tiny-llama/arithmetic``."""
        return f"{self.family.name}/{self.name}"

    @property
    def search(self) -> SearchSettings:
        """The settings of this student's search: its own, or else its family's."""
        return self.spec.search or self.family.search

    def searched_by(self, settings: SearchSettings) -> Student:
        """Return this student with other *settings* of its search."""
        return replace(self, spec=self.spec.model_copy(update={"search": settings}))

    @property
    def gate(self) -> GateSettings:
        """The thresholds that this student is gated by: its family's."""
        return self.family.gate

    @property
    def memory_gib(self) -> float:
        """The memory that a worker needs for it and for the judges of its gate, in GiB."""
        judges = sum(getattr(row, "memory_gib", 0.0) for row in self.family.models_that_judge.values())
        return judges + (0.0 if self.spec.served else self.family.memory_gib)

    @property
    def patchable(self) -> bool:
        """Whether its weights are here, and a teacher to patch it from."""
        return self.family.teacher is not None and self.spec.served is None

    @property
    def sources(self) -> dict[str, str]:
        """Where each model of this student comes from, as anybody may read it."""
        specs = {"student": self.spec, "teacher": self.family.teacher, "ancestor": self.family.ancestor}
        return {name: spec.published for name, spec in specs.items() if spec}

    def require_teacher(self) -> ModelSpec:
        """Return the model that a patch is taken from.

        Raises:
            ConfigError: there is none.
        """
        if self.spec.served:
            raise ConfigError(
                f"{self.id}: is served, and a patch needs its weights. Name them in the registry (`path`, `hf`) "
                "instead of `served`, patch them, and serve the result."
            )
        if self.family.teacher is None:
            raise ConfigError(
                f"{self.id}: its family names no teacher, so there is nothing to search. Add `teacher` to "
                f"[families.{self.family.name}] in the registry, or gate the student as it is."
            )
        return self.family.teacher

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models that gating this student needs: its teacher, the ancestor if a patch adds to it, itself.

        None of them, if it is served.
        """
        if not self.patchable:
            return () if self.spec.served else (self.spec,)
        ancestor = self.family.ancestor if self.search.transfer == "add" else None
        return (self.require_teacher(), *([ancestor] if ancestor else []), self.spec)


@dataclass(frozen=True)
class Registry:
    """Every family of one TOML file (or of the embedded ones)."""

    families: Mapping[str, Family]

    def knows(self, family: str) -> bool:
        """Return whether *family* is a family of this registry, or a group of families."""
        return any(family in (entry.name, entry.group) for entry in self.families.values())

    def select(
        self, *, family: str | None = None, students: Sequence[str] = (), teacher: str | None = None
    ) -> tuple[Student, ...]:
        """Return the students that a run is about, in the registry's order.

        Args:
            family: a family, or a group of families; all when None.
            students: names or ids; all when empty.
            teacher: a family whose teacher replaces the teacher of every student.

        Raises:
            ConfigError: a name is not known; the message suggests the nearest one. Or the family *teacher* names none,
                or a student is to add what its teacher learnt, and its family names no ancestor.
        """
        groups = {entry.group for entry in self.families.values() if entry.group}
        if family is not None and family not in self.families and family not in groups:
            if file := REPOSITORY_ONLY.get(family):
                raise ConfigError(
                    f"The family {family!r} is in the repository only: its files are too large for the installed "
                    "package. Clone the repository and run there (`pip install -e '.[all]'`), or name its registry, "
                    f"CLONE/safety_harness/families/{file}."
                )
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
            if (other := self.families[teacher].teacher) is None:
                raise ConfigError(f"The family {teacher!r} names no teacher that other students could be given.")
            if served := [s.id for s in chosen if s.spec.served]:
                raise ConfigError(f"{served[0]}: is served, and has no use for another teacher. Choose other students.")
            chosen = [replace(s, family=s.family.model_copy(update={"teacher": other})) for s in chosen]
        for student in chosen:
            if student.patchable and student.search.transfer == "add" and student.family.ancestor is None:
                raise ConfigError(
                    f"Family {student.family.name!r} is to add what its teacher learnt, but names no `ancestor`: the "
                    "model that teacher and students were tuned from. Name it, or replace."
                )
        return tuple(chosen)


def embedded_files() -> list[Path]:
    """Return the registry files of the package: all in a clone, those of ``tiny`` in a wheel."""
    folder = Path(str(resources.files("safety_harness"))) / "families"
    return sorted(folder.glob("*.toml"))


def open_registry(
    files: Sequence[Path],
    family: str | None,
    folder: Path = Path(),
    *,
    search: Mapping[str, object] | None = None,
    gate: Mapping[str, object] | None = None,
) -> tuple[Registry, list[Path]]:
    """Read the registry of a run: *files*; or ``gate.toml`` in *folder*; or the embedded families.

    ``gate.toml`` is passed over where *family* is named and is none of its families.

    Returns:
        The registry, and the files that it was read from; none for the embedded families.

    Raises:
        ConfigError: as :func:`load_registry`.
    """
    default = folder / DEFAULT_REGISTRY
    if not files and default.exists():
        registry = load_registry(default, search=search, gate=gate)
        if family is None or registry.knows(family):
            return registry, [default]
    return load_registry(*files, search=search, gate=gate), list(files)


def load_registry(
    *files: Path,
    search: Mapping[str, object] | None = None,
    gate: Mapping[str, object] | None = None,
) -> Registry:
    """Read registry files: *files*, or the embedded ones. Values of *search* and *gate* override the files'.

    Raises:
        ConfigError: a file is missing, is not TOML (with line and column), or holds an unknown or wrong value.
    """
    families: dict[str, Family] = {}
    for file in files or embedded_files():
        for name, family in read_families(file, search or {}, gate or {}).items():
            if name in families:
                raise ConfigError(f"{file}: family {name!r} is already defined in another file. Rename one.")
            families[name] = family
    return Registry(families)
