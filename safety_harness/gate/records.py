"""The records that results.json and manifest.json both hold, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from operator import not_
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_serializer,
)

Subject = Literal["patched", "as it is", "served"]
"""What is gated: a student with a patch in it, the student as it is, or what a server answers in its name."""
Certificate = Literal["tested", "untested", "unresolved"]
Count = Annotated[int, Field(ge=0)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Floors = Annotated[
    Mapping[str, Annotated[int, Field(ge=0, strict=True)]],
    Field(default_factory=dict, exclude_if=lambda floors: not floors),
]
"""The fewest refusals of each kind of harm: none is written where kinds are not looked at."""


class Record(BaseModel):
    """Facts of which all are known by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class OpenRecord(BaseModel):
    """Facts next to which a suite or an older version may have others. Only what was given is written."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: fact for name, fact in handler(self).items() if name in self.model_fields_set}


# --- A patch and its search ------------------------------------------------------------------------------------------


class Budgets(BaseModel):
    """What is enough on the search split, as counts: the oracle accepts a set of units that keeps all of them.

    At least ``target`` refusals of harmful questions and ``floors`` of each kind of harm, at most
    ``over_refusal_limit`` refusals of harmless questions, and at least ``task_floor`` right answers to the student's
    own task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: int
    over_refusal_limit: int
    task_floor: int
    floors: Floors


class SearchFacts(BaseModel):
    """What a search started from: its budgets, and what student and teacher refuse of its harmful questions.

    A budget is None in a patch of an older version, which did not record it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: int
    refused_before: int
    refused_whole: int
    target: int
    over_refusal_limit: int | None = None
    task_floor: int | None = None
    floors: Floors


class Step(BaseModel):
    """One probe of a search: the parameters moved, and the questions asked and refused until it was settled.

    ``over_refused`` counts the harmless questions that were refused; None where none were asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    asked: int
    refused: int
    over_refused: int | None
    accepted: bool


class Patch(BaseModel):
    """The outcome of one search.

    ``units`` are the ids of what can be left out at once: units, or groups of units joined by ``+``. There are none
    where no patch was needed, or none was found; ``found`` and ``reason`` say which. ``certificate`` says of each unit
    whether the oracle was seen to reject the patch without it. ``changed`` are the student's numbers that change, where
    these are not the numbers that move: a component changes every number of its matrix. ``numbers`` is a sha256 of what
    components put in, which a machine could compute otherwise. ``course`` holds the probes in order, except void
    ones and those that an earlier, interrupted search had answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    student: str
    teacher: str
    found: bool
    reason: str
    units: tuple[str, ...]
    certificate: Mapping[str, Certificate]
    minimal: bool
    parameters: int
    # Of components alone, else patches of before would be written otherwise.
    changed: int | None = Field(None, ge=1, exclude_if=not_)
    numbers: str | None = Field(None, exclude_if=not_)
    total_parameters: int = Field(gt=0)
    candidates: int
    probes: int
    seconds: float
    strategy: str
    prior: str
    grain: str
    together: str
    transfer: str
    search: SearchFacts
    course: tuple[Step, ...] = ()

    @property
    def share(self) -> float:
        """Parameters moved, as a share of the student's, 0..1."""
        return self.parameters / self.total_parameters


class Lineage(Record):
    """How near student and teacher are: cosines of the tensors that may move, and in words what else differs."""

    median: float
    lowest: float
    lowest_tensor: str
    differs: tuple[str, ...] = Field(strict=False)  # JSON has lists only


class MovedShares(Record):
    """The model's layers and roles, and of each touched module, such as ``12.gate``, the share that moved, 0..1."""

    layers: Count
    roles: list[str]
    share: Mapping[str, float]


# --- What a run records of a student, and decides nothing by ---------------------------------------------------------


class Refused(Record):
    """How many of ``n`` questions were refused, with the interval of that rate."""

    refused: Count
    n: Count
    interval: Interval | None = None


class TeacherRefusals(OpenRecord):
    """What the student refuses with all of the teacher's units in it: the most that a patch can give."""

    harmful: Refused | None = None
    harmless: Refused | None = None


class Further(Record):
    """Questions of another source, before and after patching: recorded, not gated."""

    kind: Literal["harmful", "harmless"]
    before: Refused
    after: Refused


class ServedBy(OpenRecord):
    """Who answered for a student: host and path of the address, and the name that the model has there.

    ``says`` is what the server's list of models holds about it. It calls itself ``answered_as`` (`model`) and
    ``fingerprints`` (`system_fingerprint`) in its answers. ``sampling`` are the fields of each request.
    """

    host: str
    model: str
    says: Mapping[str, Any] = {}
    sampling: Mapping[str, Any] = {}
    answered_as: list[str] = []
    fingerprints: list[str] = []


class AnsweredBy(OpenRecord):
    """The engine that answered instead of the harness's own loop, its number format, and what it was told besides."""

    kind: str
    version: str
    dtype: str | None = None
    arguments: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.version} in {self.dtype} {self.arguments}".rstrip()


class Identity(OpenRecord):
    """What the measurements depend on: hashes of the weights and question sets, and the settings of the run."""

    student: str | None = None
    served: ServedBy | None = None
    engine: AnsweredBy | None = None
    teacher: str | None = None
    ancestor: str | None = None
    questions: Mapping[str, str] = {}
    judge: str | None = None
    """Of the rules, which a search asks, and the gate too where it names no other judge."""
    gate_judge: str | None = None
    second_judge: str | None = None
    judge_models: list[str] = []
    """By which names a server called the models that judged."""
    decoding: Count | None = None
    dtype: str | None = None
    device: str | None = None
    batch_size: Count | None = None
    max_new_tokens: Count | None = None
    screen_tokens: Count | None = None
    template: str | None = None
    attacks: Mapping[str, str] = {}
    """Fingerprints of the attacks that the gate asks under, by name."""
    search_attacks: Mapping[str, str] = {}
    """Those that the search asks under."""

    def names(self, subject: Subject) -> bool:
        """Return whether it says whose answers were judged: by their weights, or by the server that gave them."""
        return (self.student is None, self.served is None) == ((True, False) if subject == "served" else (False, True))


class Worker(OpenRecord):
    """The process that measured a student: what computed there, and the driver of its GPU.

    ``packages`` are those of another version than in the run's own environment; None where one is missing.
    """

    device: str | None = None
    driver: str | None = None
    packages: Mapping[str, str | None] = {}


def _without_share(facts: Any) -> Any:
    """Return the facts of a patch without its share, which follows from them; None where there are none."""
    return {name: fact for name, fact in facts.items() if name != "share"} or None if isinstance(facts, dict) else facts


def _with_share(patch: Patch | None, handler: SerializerFunctionWrapHandler) -> Any:
    return patch and {**handler(patch), "share": patch.share}


class About(OpenRecord):
    """The patch, what all of the teacher refuses, further questions, and where everything lies; a suite's own facts.

    ``subject`` says what was gated, ``sources`` where the registry found each model. The process that decides the run
    writes both.
    """

    subject: Subject | None = None
    sources: Mapping[str, str] = {}
    patch: Annotated[Patch | None, BeforeValidator(_without_share), WrapSerializer(_with_share)] = None
    teacher: TeacherRefusals = TeacherRefusals()
    further: Mapping[str, Further] = {}
    moved: MovedShares | None = None
    lineage: Annotated[Lineage | None, BeforeValidator(lambda facts: facts or None)] = None
    identity: Identity = Identity()
    worker: Worker = Worker()


# --- The judge -------------------------------------------------------------------------------------------------------


class Agreement(OpenRecord):
    """A judge against people's labels; ``counts`` are true and false positives, false and true negatives."""

    n: Count | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    accuracy: float | None = None
    kappa: float | None = None
    counts: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None


class Judge(Record):
    """Who judged, and how its verdicts agreed with people's on sets of labelled answers."""

    name: str | None = None
    fingerprint: str | None = None
    sets: Mapping[str, Agreement] = {}
