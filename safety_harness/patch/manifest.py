"""What an artifact says of itself: whose weights, which numbers of them, found how, and on what evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from safety_harness.errors import ArtifactError
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Outcome
from safety_harness.patch.tensor_bytes import once_each
from safety_harness.weights.units import numbers, runs

SCHEMA = 1

# A manifest of a model with every expert of every layer in it has a few megabytes.
LARGEST = 32 * 1024 * 1024

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
# Of a file beside the manifest or the weights: it may lead nowhere else.
FileName = Annotated[str, Field(max_length=255, pattern=r"^\.*[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Origin(_Part):
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


class Entry(_Part):
    """What is moved of one tensor of the student: all of it (``replace``), or a part (``replace_slice``).

    A part are ``indices`` along dimension ``axis``, written as in a unit's id, ``3,40-43``. The patch holds their new
    numbers in ascending order, in the student's ``dtype``; ``before`` and ``after`` are the sha256 of the whole tensor.
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
        width, last = self.shape[self.axis], -1
        for first, end in runs(self.indices):
            if not last < first <= end < width:
                raise ValueError(f"indices must ascend, each below {width}")
            last = end
        return self

    @property
    def moved(self) -> tuple[int, ...]:
        """The indices that move; none where all of the tensor does."""
        return tuple(numbers(self.indices)) if self.indices else ()

    @property
    def along(self) -> int:
        """The dimension of the indices; 0 where all of the tensor moves."""
        return self.axis or 0

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of its tensor in the patch."""
        if self.indices is None:
            return self.shape
        count = sum(end - first + 1 for first, end in runs(self.indices))  # without writing them all out
        return tuple(count if at == self.axis else size for at, size in enumerate(self.shape))

    @property
    def parameters(self) -> int:
        """How many numbers move."""
        return math.prod(self.patch_shape)


class Nearness(_Part):
    """How near student and teacher are: cosines of the tensors that may move, and the settings in which they differ."""

    median: float
    lowest: float
    lowest_tensor: str
    differs: tuple[str, ...]


class Measured(_Part):
    """One check of the gate: its outcome, a sentence, and its numbers."""

    outcome: Outcome
    summary: str
    numbers: Mapping[str, Any]


class Refused(_Part):
    """How many of some questions were refused, and the interval of that rate."""

    refused: int = Field(ge=0)
    n: int = Field(ge=0)
    interval: tuple[float, float]


class Further(_Part):
    """Questions of another source, before and after patching: recorded, not gated."""

    kind: Literal["harmful", "harmless"]
    before: Refused
    after: Refused


class Judge(_Part):
    """Who judged, and how its verdicts agreed with people's on labelled answers."""

    name: str
    fingerprint: str
    sets: Mapping[str, Mapping[str, Any]]


class Evidence(_Part):
    """What the gate decided about this patch, and on what: rates with their counts and intervals, by check."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: Mapping[str, Measured]
    thresholds: Mapping[str, Any]
    teacher: Mapping[str, Any]
    further: Mapping[str, Further]
    judge: Judge
    provenance: Mapping[str, Any]


class Manifest(_Part):
    """``manifest.json``. ``rest`` is of every tensor of the student that is not moved the sha256 of "DTYPE
    [SHAPE] SHA256", the last of its bytes.

    ``identity`` is all that the measurements depend on: questions, chat template, judge, decoding, batch size, dtype.
    """

    schema_version: Literal[1] = 1
    tool: str
    created: str
    student: Origin
    teacher: Origin
    ancestor: Origin | None = None
    lineage: Nearness | None = None
    total_parameters: int = Field(gt=0)
    entries: Annotated[tuple[Entry, ...], FailFast()] = Field(min_length=1)
    rest: Mapping[Name, Digest]
    identity: Mapping[str, Any]
    search: Patch
    gate: Evidence | None = None
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
        """Numbers moved, as a share of the student's, 0..1."""
        return self.parameters / self.total_parameters


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def read_manifest(file: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ArtifactError: it is missing, too large, no JSON, names a key twice, is of another schema, or a value is wrong.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ArtifactError(f"{file}: is larger than any manifest ({LARGEST >> 20} MiB). Get the artifact again.")
        text = file.read_text(encoding="utf-8")
        table = json.loads(text, object_pairs_hook=once_each, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError:
        raise ArtifactError(
            f"{file}: missing, so this is no patch. Name the folder that `search --out` wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: cannot be read as JSON ({error}). Get the artifact again.") from error
    version = table.get("schema_version") if isinstance(table, dict) else None
    if version != SCHEMA:
        raise ArtifactError(
            f"{file}: schema version {version!r}, but this version reads {SCHEMA}. Make the patch again."
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the manifest"
        raise ArtifactError(f"{file}: {where}: {first['msg']}. Get the artifact again.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number
