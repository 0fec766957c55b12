"""The manifest of an artifact: whose weights, which numbers of them, how they were found, and on what evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from safety_harness.errors import ArtifactError, first_fault
from safety_harness.gate.limits import not_shown
from safety_harness.gate.numbers import Attacked, Numbers, Tamper, numbers_of_check
from safety_harness.gate.records import Further, Identity, Judge, Lineage, Patch, Record, TeacherRefusals
from safety_harness.gate.results import Outcome
from safety_harness.reading import MIB, Reader
from safety_harness.weights.ranges import ascending, count, numbers

SCHEMA = 1

READER = Reader(
    ArtifactError,
    missing="missing, so this is no patch. Name the folder that `patch --out` wrote.",
    advice="Get the artifact again.",
    no_json="cannot be read as JSON",
    at_most=32 * MIB,  # the manifest of a patch of every expert in every layer has a few
)

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
# A file next to the manifest or the weights, or a further chat template: its name may lead nowhere else.
FileName = Annotated[
    str, Field(max_length=281, pattern=r"^(additional_chat_templates/)?\.*[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]*$")
]


class Origin(Record):
    """A model: where the registry found it, and the sha256 of each file that decides what it answers.

    ``adapters`` are those that were merged into it, in order. ``dequantised``: it was unpacked from a quantised file.
    """

    source: str
    repository: str | None = None
    revision: str | None = None
    licence: str | None = None
    architecture: str
    adapters: tuple[Digest, ...] = ()
    dequantised: bool = False
    files: Mapping[FileName, Digest]


class Entry(Record):
    """One tensor of the student that moves: all of it (``replace``), or a part (``replace_slice``).

    The part is ``indices`` along dimension ``axis``, written as in a unit's id: ``3,40-43``. The patch holds the new
    numbers in ascending order of the indices, in the student's ``dtype``. ``before`` and ``after`` are the sha256 of
    the whole tensor.
    """

    tensor: Name
    layer: int = Field(ge=0)
    role: str
    operation: Literal["replace", "replace_slice"]
    axis: int | None = Field(None, ge=0, le=8)
    indices: Annotated[str, Field(pattern=r"^\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*$")] | None = None
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(max_length=8)
    dtype: str
    before: Digest
    after: Digest

    @model_validator(mode="after")
    def _slices_have_indices(self) -> Self:
        if self.operation == "replace":
            if self.indices is not None or self.axis is not None:
                raise ValueError("`replace` moves all of a tensor: it has neither `axis` nor `indices`")
            return self
        if self.indices is None or self.axis is None or self.axis >= len(self.shape):
            raise ValueError("`replace_slice` needs an `axis` of the tensor and `indices`")
        if not ascending(self.indices, self.shape[self.axis]):
            raise ValueError(f"indices must ascend, each below {self.shape[self.axis]}")
        return self

    @property
    def moved(self) -> tuple[int, ...]:
        """The indices that move; none where all of the tensor moves."""
        return tuple(numbers(self.indices)) if self.indices else ()

    @property
    def along(self) -> int:
        """The dimension of the indices; 0 where all of the tensor moves."""
        return self.axis or 0

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of the moved numbers in the patch."""
        if self.indices is None:
            return self.shape
        return tuple(count(self.indices) if at == self.axis else size for at, size in enumerate(self.shape))

    @property
    def parameters(self) -> int:
        """How many numbers move."""
        return math.prod(self.patch_shape)


class Measured(Record):
    """One check of the gate: its outcome, a sentence, and its numbers."""

    outcome: Outcome
    summary: str
    numbers: SerializeAsAny[Numbers]


class GateEvidence(Record):
    """The gate's decision about this patch, and its grounds: rates with their counts and intervals, by check."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: Mapping[str, Measured]
    thresholds: Mapping[str, Any]
    teacher: TeacherRefusals
    further: Mapping[str, Further]
    judge: Judge
    provenance: Mapping[str, Any]

    @field_validator("checks")
    @classmethod
    def _with_typed_numbers(cls, checks: Mapping[str, Measured]) -> Mapping[str, Measured]:
        return {
            name: check.model_copy(update={"numbers": numbers_of_check(name, check.numbers)})
            for name, check in checks.items()
        }


class Manifest(Record):
    """The content of ``manifest.json``.

    ``rest`` has every tensor of the student that does not move, as the sha256 of "DTYPE [SHAPE] SHA256", where the last
    is the sha256 of its bytes. ``identity`` is all that the measurements depend on.
    """

    schema_version: Literal[1] = 1
    tool: str
    created: str
    student: Origin
    teacher: Origin
    ancestor: Origin | None = None
    lineage: Lineage | None = None
    total_parameters: int = Field(gt=0)
    entries: Annotated[tuple[Entry, ...], FailFast()] = Field(min_length=1)
    rest: Mapping[Name, Digest]
    identity: Identity
    search: Patch
    gate: GateEvidence | None = None
    environment: Mapping[str, str]

    @model_validator(mode="after")
    def _each_tensor_once(self) -> Self:
        seen = set(self.rest)
        for entry in self.entries:
            if entry.tensor in seen:
                raise ValueError(f"tensor {entry.tensor!r} is named twice")
            seen.add(entry.tensor)
        return self

    @property
    def parameters(self) -> int:
        """How many numbers move."""
        return sum(entry.parameters for entry in self.entries)

    @property
    def share(self) -> float:
        """The share of the student's numbers that move, 0..1."""
        return self.parameters / self.total_parameters

    @property
    def not_shown(self) -> tuple[str, ...]:
        """What its gate does not show: less where that asked under attack, or after tuning."""
        numbers = [check.numbers for check in self.gate.checks.values()] if self.gate else []
        return not_shown(
            under_attack=any(isinstance(one, Attacked) and one.attacks for one in numbers),
            tuned=any(isinstance(one, Tamper) and one.gated for one in numbers),
        )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def read_manifest(file: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ArtifactError: it is missing, too large, no JSON, names a key twice, is of another schema, or a value is wrong.
    """
    text = READER.text(file)
    table = READER.parse(text, str(file))
    version = table.get("schema_version") if isinstance(table, dict) else None
    if version != SCHEMA:
        raise ArtifactError(
            f"{file}: schema version {version!r}, but this version reads {SCHEMA}. Make the patch again."
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{file}: {first_fault(error, 'the manifest')}. Get the artifact again.") from error
