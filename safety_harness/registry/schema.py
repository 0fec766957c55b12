"""The tables of a registry file: models and their tasks, families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safety_harness.errors import did_you_mean
from safety_harness.registry.attacks import AttackRow
from safety_harness.registry.backend import Backend
from safety_harness.registry.judges import RULES, JudgeRow, RulesJudge
from safety_harness.registry.named import expand
from safety_harness.registry.paths import RegistryPath, Text
from safety_harness.registry.server import Served
from safety_harness.registry.settings import Count, GateSettings, Preset, SearchSettings
from safety_harness.registry.sources import (
    KINDS,
    MUST,
    FurtherQuestions,
    MustQuestions,
    PromptSource,
    Source,
    SplitSpec,
    Table,
)

Dtype = Literal["float32", "bfloat16", "float16"]
DeviceMap = Literal["auto", "balanced", "balanced_low_0"]
_OF_WEIGHTS = ("adapters", "chat_template", "file", "revision", "sha256")


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


class Family(Table):
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
    must: Mapping[str, MustQuestions] = Field(
        {},
        description="Lists that every student must keep to, by name: `[families.NAME.must.LIST]`. Each is a check of "
        "its own, `must.LIST`.",
    )
    require: tuple[Text, ...] = Field(
        (), description="Names of checks that suites of your own measure, without which nothing is proven."
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
    device_map: DeviceMap | None = Field(
        None,
        description="How a model that does not fit one GPU is spread over all GPUs that its worker sees, whole layers "
        "on each: `auto` deals them evenly, `balanced_low_0` leaves room on the first one. Unset: it is on one GPU.",
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
    backend: Backend | None = Field(
        None, description="An engine that answers the gate's questions instead of the harness's own loop, such as vLLM."
    )
    judges: Mapping[str, JudgeRow] = Field(
        {}, description="Rows of the judges that it names, `[judges.NAME]`. It is not a key of that table."
    )
    judge: tuple[Text, ...] = Field(
        (RULES,),
        min_length=1,
        description="Judge of the gate: `rules`, or the name of a table `[judges.NAME]`. Of a list, each next one is "
        "asked about the answers in which those before it found no refusal, and its verdict counts. A search asks the "
        "rules.",
    )
    second_judge: Text | None = Field(
        None,
        description="Judge that is asked again about what decides: each question that is refused only before or only "
        "after patching, and each harmful one that is not refused. Its disagreements are shown, and too many of them "
        "prove nothing (`judges_disagree`).",
    )
    attacks: Mapping[str, AttackRow] = Field(
        {}, description="Rows of the attacks of its file, `[attacks.NAME]`. It is not a key of that table."
    )
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()

    @field_validator("judge", mode="before")
    @classmethod
    def _one_judge(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("judge")
    @classmethod
    def _judges_are_rows(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in names:
            _row_of(name, info)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the judge {twice[0]!r} is named twice")
        return names

    @field_validator("second_judge")
    @classmethod
    def _second_is_another(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name and _row_of(name, info) in info.data.get("judge", ()):
            raise ValueError(f"{name!r} is the gate's own judge; a second opinion of the same judge is none")
        return name

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

    @field_validator("harmful", "harmless", "further", "must", "text", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        return expand("further" if info.field_name == "must" else str(info.field_name), value)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        return _plain("family", name)

    @field_validator("attacks")
    @classmethod
    def _plain_attacks(cls, attacks: Mapping[str, AttackRow]) -> Mapping[str, AttackRow]:
        return {_plain("attack", name): row for name, row in attacks.items()}

    @field_validator("further")
    @classmethod
    def _plain_sets(cls, further: Mapping[str, FurtherQuestions]) -> Mapping[str, FurtherQuestions]:
        return {_plain("question set", name): source for name, source in further.items()}

    @field_validator("must")
    @classmethod
    def _plain_lists(cls, must: Mapping[str, MustQuestions]) -> Mapping[str, MustQuestions]:
        return {_plain("list", name): source for name, source in must.items()}

    @field_validator("require")
    @classmethod
    def _plain_checks(cls, require: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain("check", name) for name in require)

    @property
    def models_that_judge(self) -> dict[str, JudgeRow]:
        """The judges of its gate that are not the rules, by name."""
        named = [*self.judge, *([self.second_judge] if self.second_judge else [])]
        rows = {name: self.judges[name] for name in named if name in self.judges}
        return {name: row for name, row in rows.items() if not isinstance(row, RulesJudge)}

    @property
    def required(self) -> dict[str, str]:
        """The checks that the gate of each student requires in addition to its own, with the rule of each."""
        lists = {f"{MUST}{name}": source.rule for name, source in self.must.items()}
        return lists | dict.fromkeys(self.require, "a suite's own")

    @field_validator("students")
    @classmethod
    def _plain_names(cls, students: Mapping[str, StudentSpec]) -> Mapping[str, StudentSpec]:
        return {_plain("student", name): spec for name, spec in students.items()}


def _row_of(name: str, info: ValidationInfo) -> str:
    """Return *name*, if it names a judge of the file."""
    known = [RULES, *info.data.get("judges", {})]
    if name not in known:
        near = did_you_mean(name, known) or f" Add [judges.{name}]."
        raise ValueError(f"{name!r} is no judge of this file.{near}")
    return name


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
